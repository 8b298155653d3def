use super::{Optimizer, check};

/// Stochastic gradient descent, as `torch.optim.SGD`.
///
/// `g ← grad + decay·w`, `b ← momentum·b + g`, `w ← w − lr·b`; with Nesterov's look ahead, `w ← w − lr·(g + momentum·b)`.
/// State: `b`, if there is momentum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Share of the last step that the next keeps.
    pub momentum: f64,
    /// Whether the gradient counts as taken after the momentum's move.
    pub nesterov: bool,
    /// L2 penalty.
    pub weight_decay: f64,
}

impl Default for Sgd {
    /// Momentum 0.9.
    fn default() -> Self {
        Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 }
    }
}

impl Optimizer for Sgd {
    fn state_len(&self, len: usize) -> usize {
        if self.momentum == 0.0 { 0 } else { len }
    }

    fn step(&self, state: &mut [f32], weight: &mut [f32], grad: &[f32], lr: f64, step: u64) {
        check(self, state, weight, grad, step);
        let (lr, momentum, decay) = (lr as f32, self.momentum as f32, self.weight_decay as f32);
        if self.momentum == 0.0 {
            for (weight, &grad) in weight.iter_mut().zip(grad) {
                *weight -= lr * (grad + decay * *weight);
            }
            return;
        }
        for ((weight, &grad), velocity) in weight.iter_mut().zip(grad).zip(state) {
            let grad = grad + decay * *weight;
            *velocity = momentum * *velocity + grad;
            *weight -= lr * if self.nesterov { grad + momentum * *velocity } else { *velocity };
        }
    }
}
