use super::{Average, Optimizer, check};

/// Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019), as `torch.optim.Adam` and `AdamW`.
///
/// `m` and `v` are moving averages of `g` and `g²`; `w ← w − lr · m̂ / (√v̂ + eps)` with `m̂ = m / (1 − β₁ᵗ)`,
/// `v̂ = v / (1 − β₂ᵗ)`. State: `m`, then `v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// β₁ and β₂, the shares of `m` and `v` that a step keeps.
    pub betas: (f64, f64),
    /// What keeps the division from 0.
    pub eps: f64,
    /// Pull towards 0.
    pub weight_decay: f64,
    /// Whether the pull bypasses the averages, `w ← (1 − lr·decay)·w` first (AdamW), or is part of `g` (Adam).
    pub decoupled: bool,
}

impl Default for Adam {
    /// PyTorch's coefficients, without decay.
    fn default() -> Self {
        Adam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, decoupled: true }
    }
}

impl Optimizer for Adam {
    fn state_len(&self, len: usize) -> usize {
        2 * len
    }

    fn step(&self, state: &mut [f32], weight: &mut [f32], grad: &[f32], lr: f64, step: u64) {
        check(self, state, weight, grad, step);
        let (mean, square) = (Average::new(self.betas.0), Average::new(self.betas.1));
        let size = (lr / (1.0 - self.betas.0.powf(step as f64))) as f32;
        let root = (1.0 - self.betas.1.powf(step as f64)).sqrt() as f32;
        let eps = self.eps as f32;
        let (shrink, penalty) = match self.decoupled {
            true => ((1.0 - lr * self.weight_decay) as f32, 0.0),
            false => (1.0, self.weight_decay as f32),
        };
        let (m, v) = state.split_at_mut(weight.len());
        for (((weight, &grad), m), v) in weight.iter_mut().zip(grad).zip(m).zip(v) {
            let grad = grad + penalty * *weight;
            let (m, v) = (mean.update(m, grad), square.update(v, grad * grad));
            *weight = shrink * *weight - size * (m / (v.sqrt() / root + eps));
        }
    }
}
