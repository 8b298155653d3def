use super::{Average, Optimizer, check};

/// Rectified Adam (Liu et al., 2020) as the official code uses it: `torch_optimizer.RAdam`, not `torch.optim.RAdam`.
///
/// `m` and `v` as in [`Adam`](super::Adam). While the average behind `v` is over fewer than five steps (ρ < 5, the
/// first five with the usual β₂), the step is `w ← w − lr / (1 − β₁ᵗ) · m`; from then on it is
/// `w ← w − lr · r / (1 − β₁ᵗ) · m / (√v + eps)`, where `r` rectifies the variance and contains the correction of `v`.
/// Decay is decoupled: `w ← (1 − lr·decay)·w` first. State: `m`, then `v`.
///
/// The official class shares its buffer of step sizes between parameter groups, so that every group moves with the
/// learning rate of the first; whoever wants that passes that rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RAdam {
    /// β₁ and β₂, the shares of `m` and `v` that a step keeps.
    pub betas: (f64, f64),
    /// What keeps the division from 0.
    pub eps: f64,
    /// Pull towards 0.
    pub weight_decay: f64,
}

impl Default for RAdam {
    /// The official coefficients, without decay.
    fn default() -> Self {
        RAdam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }
    }
}

impl RAdam {
    /// The factor `r` of step `step`, with the correction of `v`; `None` while the variance cannot be known.
    fn rectification(&self, step: u64) -> Option<f64> {
        let power = self.betas.1.powf(step as f64);
        let longest = 2.0 / (1.0 - self.betas.1) - 1.0;
        let length = longest - 2.0 * step as f64 * power / (1.0 - power);
        (length >= 5.0).then(|| {
            let variance = (length - 4.0) / (longest - 4.0) * (length - 2.0) / length * longest / (longest - 2.0);
            ((1.0 - power) * variance).sqrt()
        })
    }
}

impl Optimizer for RAdam {
    fn state_len(&self, len: usize) -> usize {
        2 * len
    }

    fn step(&self, state: &mut [f32], weight: &mut [f32], grad: &[f32], lr: f64, step: u64) {
        check(self, state, weight, grad, step);
        let (mean, square) = (Average::new(self.betas.0), Average::new(self.betas.1));
        let rectification = self.rectification(step);
        let size = (lr * rectification.unwrap_or(1.0) / (1.0 - self.betas.0.powf(step as f64))) as f32;
        let (eps, shrink) = (self.eps as f32, (1.0 - lr * self.weight_decay) as f32);
        let (m, v) = state.split_at_mut(weight.len());
        for (((weight, &grad), m), v) in weight.iter_mut().zip(grad).zip(m).zip(v) {
            let (m, v) = (mean.update(m, grad), square.update(v, grad * grad));
            let direction = if rectification.is_some() { m / (v.sqrt() + eps) } else { m };
            *weight = shrink * *weight - size * direction;
        }
    }
}
