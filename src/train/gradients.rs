//! What happens to gradients between the backward pass and the optimiser.

use crate::error::{Error, Result};
use crate::nn::{Parameter, Parameters};
use crate::ops::many::{scale_all, sums_of_squares};

/// Shortens the gradients of all parameters together to the Euclidean norm `limit`, if they are longer (Pascanu et al. 2013).
/// Returns the norm before that, summed in f64 in the parameters' order.
///
/// # Errors
/// [`Error::NotFinite`] naming the first parameter whose gradient is not finite; what the device's driver says.
pub fn clip(parameters: &mut Parameters, limit: f32, step: u64) -> Result<f64> {
    let device = parameters.device().clone();
    let reached: Vec<&Parameter> = parameters.iter().filter(|parameter| parameter.gradient().is_some()).collect();
    let gradients: Vec<_> = reached.iter().filter_map(|parameter| parameter.gradient()).collect();
    let squares = sums_of_squares(&device, &gradients)?;
    if let Some(first) = squares.iter().position(|square| !square.is_finite()) {
        return Err(Error::NotFinite { what: "a gradient".into(), step, op: reached[first].name().into() });
    }
    let norm = squares.iter().sum::<f64>().sqrt();
    if norm > f64::from(limit) {
        let factor = (f64::from(limit) / norm) as f32;
        let mut gradients: Vec<_> = parameters.iter_mut().filter_map(Parameter::gradient_mut).collect();
        scale_all(&device, &mut gradients, factor)?;
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::clip;
    use crate::error::Error;
    use crate::memory::Role;
    use crate::nn::{Kind, Parameters};
    use crate::ops::testing::{assert_clean, every_device};
    use crate::tensor::Tensor;

    #[test]
    fn long_gradients_are_shortened_and_others_stay() {
        for device in every_device() {
            let mut parameters = Parameters::new(&device);
            for name in ["a", "b", "unreached"] {
                parameters.add(name, Kind::Weight, &[2], |w| w.fill(1.0)).unwrap();
            }
            let set = |parameters: &mut Parameters, gradients: [[f32; 2]; 2]| {
                for (parameter, values) in parameters.iter_mut().zip(gradients) {
                    parameter.set_gradient(Tensor::from_slice(&device, &[2], Role::Gradient, &values).unwrap());
                }
            };
            let gradients = |parameters: &Parameters| -> Vec<Vec<f32>> {
                parameters.iter().filter_map(|p| p.gradient()).map(|gradient| gradient.to_vec().unwrap()).collect()
            };
            // Squares 4 + 4 + 16 + 25 = 49.
            set(&mut parameters, [[2.0, -2.0], [4.0, 5.0]]);
            assert_eq!(clip(&mut parameters, 7.0, 1).unwrap(), 7.0);
            assert_eq!(gradients(&parameters), [[2.0, -2.0], [4.0, 5.0]]);
            assert_eq!(clip(&mut parameters, 3.5, 1).unwrap(), 7.0);
            assert_eq!(gradients(&parameters), [[1.0, -1.0], [2.0, 2.5]]);
            set(&mut parameters, [[2.0, -2.0], [f32::INFINITY, 5.0]]);
            match clip(&mut parameters, 3.5, 9) {
                Err(Error::NotFinite { step: 9, op, .. }) => assert_eq!(op, "b"),
                other => panic!("{other:?}"),
            }
            assert_clean();
        }
    }
}
