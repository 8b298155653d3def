use super::{Optimizer, check};

/// Lookahead (Zhang et al., 2019) around any rule, with the timing of `torch_optimizer.Lookahead`.
///
/// Slow weights `s` follow the fast ones that the inner rule moves: every `k` steps, `s ← s + alpha·(w − s)` and
/// `w ← s`. The official class starts them *after* the first inner step and meets at steps 1 (where nothing changes),
/// 1 + k, 1 + 2k and so on. State: the inner rule's, then `s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lookahead<O> {
    /// The rule that moves the fast weights.
    pub inner: O,
    /// Steps from one meeting to the next; at least 1.
    pub k: u64,
    /// How far the slow weights go towards the fast ones.
    pub alpha: f64,
}

impl<O> Lookahead<O> {
    /// The official coefficients: k = 5, alpha = 0.8.
    pub fn new(inner: O) -> Self {
        Lookahead { inner, k: 5, alpha: 0.8 }
    }
}

impl<O: Optimizer> Optimizer for Lookahead<O> {
    fn state_len(&self, len: usize) -> usize {
        self.inner.state_len(len) + len
    }

    fn step(&self, state: &mut [f32], weight: &mut [f32], grad: &[f32], lr: f64, step: u64) {
        check(self, state, weight, grad, step);
        let (inner, slow) = state.split_at_mut(self.inner.state_len(weight.len()));
        self.inner.step(inner, weight, grad, lr, step);
        if step == 1 {
            slow.copy_from_slice(weight);
        } else if (step - 1).is_multiple_of(self.k) {
            let alpha = self.alpha as f32;
            for (slow, weight) in slow.iter_mut().zip(weight) {
                *slow += alpha * (*weight - *slow);
                *weight = *slow;
            }
        }
    }
}
