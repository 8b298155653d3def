//! What happens to gradients between the backward pass and the optimiser.

use crate::error::{Error, Result};
use crate::memory::Role;
use crate::nn::{Parameters, multi_tensor};
use crate::tensor::Tensor;

/// Shortens the gradients of all parameters together to the Euclidean norm `limit`, if they are longer (Pascanu et al. 2013).
/// Returns the norm before that, summed in f64 in the parameters' order.
///
/// # Errors
/// [`Error::NotFinite`] naming the first parameter whose gradient is not finite; no memory for the shorter gradients.
pub fn clip(parameters: &mut Parameters, limit: f32, step: u64) -> Result<f64> {
    let device = parameters.device().clone();
    let (names, gradients): (Vec<&str>, Vec<&Tensor>) =
        parameters.iter().filter_map(|parameter| Some((parameter.name(), parameter.gradient()?))).unzip();
    let squares = multi_tensor::squares(&device, &gradients)?;
    if let Some(i) = squares.iter().position(|square| !square.is_finite()) {
        return Err(Error::NotFinite { what: "a gradient".into(), step, op: names[i].into() });
    }
    let norm = squares.iter().sum::<f64>().sqrt();
    if norm > f64::from(limit) {
        // A gradient that somebody else holds too is not to change for them.
        let own = |gradient: Tensor| if gradient.is_unique() { Ok(gradient) } else { gradient.copied(Role::Gradient) };
        let taken = parameters.iter_mut().map(|parameter| parameter.take_gradient().map(own).transpose());
        let mut gradients = taken.collect::<Result<Vec<Option<Tensor>>>>()?;
        let factor = (f64::from(limit) / norm) as f32;
        multi_tensor::scale(&device, factor, &mut gradients.iter_mut().flatten().collect::<Vec<_>>())?;
        for (parameter, gradient) in parameters.iter_mut().zip(gradients) {
            if let Some(gradient) = gradient {
                parameter.set_gradient(gradient);
            }
        }
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ParameterKind;
    use crate::nn::Parameters;
    use crate::ops::testing::{assert_clean, every_device};

    /// Several tensors of several blocks, one of them without a gradient, on every device.
    #[test]
    fn gradients_are_shortened_together() {
        for device in every_device() {
            let mut parameters = Parameters::new(&device);
            for (name, length) in [("a.w", 9001), ("a.b", 3), ("b.w", 4096), ("b.b", 1)] {
                parameters.add(name, ParameterKind::Weight, &[length], |w| w.fill(1.0)).unwrap();
            }
            let set = |parameters: &mut Parameters, value: f32| {
                for parameter in parameters.iter_mut().filter(|parameter| parameter.name() != "a.b") {
                    let values = vec![value; parameter.value().len()];
                    let shape = parameter.value().shape().to_vec();
                    parameter.set_gradient(Tensor::from_slice(&device, &shape, Role::Gradient, &values).unwrap());
                }
            };
            set(&mut parameters, 0.5);
            // √((9001 + 4096 + 1)/4)
            let norm = clip(&mut parameters, 5.0, 1).unwrap();
            assert!((norm - 13098f64.sqrt() / 2.0).abs() < 1e-9, "{device:?}: {norm}");
            let expected = 0.5 * (5.0 / norm) as f32;
            for parameter in parameters.iter() {
                let Some(gradient) = parameter.gradient() else {
                    assert_eq!(parameter.name(), "a.b");
                    continue;
                };
                assert!(gradient.to_vec().unwrap().iter().all(|&value| value == expected), "{device:?}");
            }
            assert!((clip(&mut parameters, 6.0, 1).unwrap() - 5.0).abs() < 1e-5);
            // A norm just above the limit is shortened as one far above it is, to f32's rounding of 13098 values.
            for limit in [57.0, 40.0] {
                set(&mut parameters, 0.5);
                assert!((clip(&mut parameters, limit, 1).unwrap() - norm).abs() < 1e-9);
                let left = clip(&mut parameters, f32::MAX, 1).unwrap();
                assert!((left - f64::from(limit)).abs() < 1e-5, "{device:?}: {left}");
            }
            set(&mut parameters, f32::INFINITY);
            let error = clip(&mut parameters, 5.0, 7).unwrap_err().to_string();
            assert!(error.contains("a.w") && error.contains('7'), "{error}");
            assert_clean();
        }
    }
}
