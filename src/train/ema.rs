//! Exponential moving average of the weights (Polyak averaging): what is scored and used for inference when it is asked for.
//!
//! `a ← a + (1 − d)(w − a)` after each step, with `d = min(decay, (1 + t)/(10 + t))` at step `t`, so that the first weights
//! are soon forgotten. Running statistics are not averaged: they are averages already.

use crate::error::{Error, Result};
use crate::memory::Role;
use crate::nn::{Parameters, multi_tensor};
use crate::tensor::Tensor;

/// Averages of all parameters, in their order.
pub struct Ema {
    decay: f32,
    weights: Vec<Tensor>,
}

impl Ema {
    /// Starts at the present weights.
    ///
    /// # Errors
    /// No memory.
    pub fn new(decay: f32, parameters: &Parameters) -> Result<Self> {
        let weights = parameters.iter().map(|parameter| parameter.value().copied(Role::OptimizerState));
        Ok(Self { decay, weights: weights.collect::<Result<_>>()? })
    }

    /// Takes in the weights after step `step` (from 1).
    ///
    /// # Errors
    /// What the device's driver says.
    pub fn update(&mut self, parameters: &Parameters, step: u64) -> Result<()> {
        self.guarded_update(parameters, step, None)
    }

    /// The same; see [`Optimizer::guarded_step`](crate::nn::optim::Optimizer::guarded_step).
    pub(crate) fn guarded_update(&mut self, parameters: &Parameters, step: u64, guard: Option<&Tensor>) -> Result<()> {
        let decay = self.decay.min((1.0 + step as f32) / (10.0 + step as f32));
        let weights = parameters.iter().map(|parameter| parameter.value());
        let mut pairs: Vec<_> = self.weights.iter_mut().zip(weights).collect();
        multi_tensor::average(parameters.device(), 1.0 - decay, &mut pairs, guard)
    }

    /// Exchanges the averages and the parameters' weights; a second call undoes it.
    pub fn exchange(&mut self, parameters: &mut Parameters) {
        for (average, parameter) in self.weights.iter_mut().zip(parameters.iter_mut()) {
            parameter.exchange_value(average);
        }
    }

    /// The averages, in the parameters' order.
    pub fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// Goes on from stored averages.
    ///
    /// # Errors
    /// [`Error::Model`] if they belong to other parameters; no memory.
    pub fn restore(&mut self, stored: &[Vec<f32>]) -> Result<()> {
        if stored.len() != self.weights.len() || stored.iter().zip(&self.weights).any(|(a, b)| a.len() != b.len()) {
            return Err(Error::Model("the stored averages belong to another network".into()));
        }
        for (average, values) in self.weights.iter_mut().zip(stored) {
            *average = Tensor::from_slice(average.device(), average.shape(), Role::OptimizerState, values)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::nn::ParameterKind;
    use crate::ops::testing::{assert_clean, every_device};

    #[test]
    fn the_average_follows_and_is_exchanged() {
        every_device().for_each(|device| check(&device));
    }

    fn check(device: &Device) {
        let mut parameters = Parameters::new(device);
        parameters.add("w", ParameterKind::Weight, &[2], |w| w.copy_from_slice(&[1.0, 2.0])).unwrap();
        let mut average = Ema::new(0.5, &parameters).unwrap();
        parameters.iter_mut().next().unwrap().value_and_gradient().0.write(&[3.0f32, 6.0]).unwrap();
        // Step 1: d = min(0.5, 2/11).
        average.update(&parameters, 1).unwrap();
        let d = 2.0f32 / 11.0;
        let expected: Vec<f32> = [(1.0, 3.0), (2.0, 6.0)].map(|(a, w): (f32, f32)| a + (1.0 - d) * (w - a)).to_vec();
        assert_eq!(average.weights()[0].to_vec().unwrap(), expected);
        average.exchange(&mut parameters);
        assert_eq!(parameters.iter().next().unwrap().value().to_vec().unwrap(), expected);
        assert_eq!(average.weights()[0].to_vec().unwrap(), [3.0, 6.0]);
        assert_clean();
    }
}
