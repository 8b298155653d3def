//! Dropout: `y_i = x_i·m_i/(1 − p)`, where `m_i` is 0 with probability `p` and 1 otherwise.
//!
//! * The mask is a pure function of seed and element index: `m_i = 0` if word `i` of the seed's stream `dropout` (see
//!   [`crate::rng`]) is below `p·2³²`. So no mask is stored, any thread can make any part of it, and the output is made
//!   anew rather than kept.
//! * Outside of training, and for `p = 0`, it is the identity and records nothing.
//! * Gradient: `dx = dy·m/(1 − p)`, written over `dy`.
//! * Work: 1 FLOP an element and bytes `8·|y|` either way (the generator's integer operations are not counted).

mod cuda;

use super::par_loops::by_elements;
use crate::device::cpu::Pool;
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::rng::Rng;
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

struct Dropout {
    probability: f32,
    seed: u64,
    /// Index of the first element in what `seed` is for.
    first: u64,
}

/// Sets elements to zero with `probability` and scales the others, if the tape is in training. Each layer and step needs
/// a `seed` of its own.
///
/// # Errors
/// A probability outside `[0, 1)`, or no memory.
pub fn dropout(tape: &Tape, x: &Var, probability: f32, seed: u64) -> Result<Var> {
    if !(0.0..1.0).contains(&probability) {
        return Err(Error::Usage(format!("the dropout probability is {probability}; choose one in [0, 1)")));
    }
    match tape.is_training() {
        true => dropout_from(tape, x.clone(), probability, seed, 0),
        false => Ok(x.clone()),
    }
}

/// The same, whatever the tape is for, for elements that are `first`, … of a larger tensor.
///
/// # Errors
/// No memory.
pub(crate) fn dropout_from(tape: &Tape, x: Var, probability: f32, seed: u64, first: usize) -> Result<Var> {
    match probability > 0.0 {
        true => tape.apply(Dropout { probability, seed, first: first as u64 }, &[&x]),
        false => Ok(x),
    }
}

/// What the mask of a call is drawn from, and the factor of what is kept.
#[derive(Clone, Copy)]
struct Mask {
    seed: u64,
    stream: u64,
    /// Index of the first element in what the seed is for.
    start: u64,
    /// Words below it drop their element.
    threshold: u64,
    scale: f32,
}

impl Mask {
    /// `values *= m/(1 − p)`, where `values` starts at element `first`.
    fn apply(&self, first: usize, values: &mut [f32]) {
        let mut words = Rng::from_state([self.seed, self.stream, self.start + first as u64]);
        for value in values {
            *value = if u64::from(words.next_u32()) < self.threshold { 0.0 } else { *value * self.scale };
        }
    }
}

impl Dropout {
    fn mask(&self) -> Mask {
        let [seed, stream, _] = Rng::named(self.seed, "dropout").state();
        let threshold = (f64::from(self.probability) * 4_294_967_296.0).ceil() as u64;
        Mask { seed, stream, start: self.first, threshold, scale: 1.0 / (1.0 - self.probability) }
    }

    fn run(&self, pool: &Pool, x: &[f32], y: &mut [f32]) {
        let mask = self.mask();
        by_elements(pool, y, |first, y| {
            y.copy_from_slice(&x[first..][..y.len()]);
            mask.apply(first, y);
        });
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        Ok(inputs[0].to_vec())
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => self.run(pool, inputs[0].data(), output.data_mut()),
            Backend::Cuda(cuda) => cuda::apply(cuda, self.mask(), Some(inputs[0]), output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let mut gradient = backward.take_gradient()?;
        match backward.device().backend() {
            Backend::Cpu { pool, .. } => {
                let mask = self.mask();
                by_elements(pool, gradient.data_mut(), |first, gradient| mask.apply(first, gradient));
            }
            Backend::Cuda(cuda) => cuda::apply(cuda, self.mask(), None, &mut gradient)?,
            Backend::Plan { .. } => {}
        }
        backward.accumulate(0, gradient)
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: len, bytes: 8 * len }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.forward_cost(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::{dropout, dropout_from};
    use crate::device::Device;
    use crate::memory::Role;
    use crate::ops::testing::{Array, Tolerance, check_bf16, check_op, every_device};
    use crate::rng::Rng;
    use crate::tape::{Mode, Tape};
    use crate::tensor::Tensor;

    /// The mask by its definition.
    fn keeps(seed: u64, i: usize, probability: f64) -> bool {
        let stream = Rng::named(seed, "dropout").state()[1];
        f64::from(Rng::word_at(seed, stream, i as u64)) >= probability * 2f64.powi(32)
    }

    #[test]
    fn follows_the_definition() {
        // More than one piece of 2^14 elements.
        let inputs = [Array::random(&[300, 70], 1)];
        let twin = |a: &[Array]| {
            let element = |(i, x): (usize, &f64)| if keeps(9, i, 0.25) { x / 0.75 } else { 0.0 };
            Array { shape: a[0].shape.clone(), data: a[0].data.iter().enumerate().map(element).collect() }
        };
        // The rounded factor and product forward; a finite difference of exact products backward.
        let tolerance = Tolerance { forward: 2e-7, backward: 1e-6 };
        check_op(&inputs, &[0], tolerance, |tape, v| dropout(tape, &v[0], 0.25, 9), twin);
    }

    #[test]
    fn in_bf16() {
        let tolerance = Tolerance { forward: 2e-7, backward: 2e-7 };
        let inputs = [Array::random(&[30, 71], 1)];
        check_bf16(&inputs, &[0], &[0], tolerance, |tape, v| dropout(tape, &v[0], 0.25, 9));
    }

    #[test]
    fn every_device_draws_the_same_bits() {
        let values = Array::random(&[1003], 3).f32s();
        // Parts of a larger tensor, too, wherever they begin.
        for first in [0, 1, 2, 3, 4, 1_000_007] {
            let run = |device: &Device| {
                let tape = Tape::new(device, Mode::Train);
                let x = tape.input(Tensor::from_slice(device, &[1003], Role::Data, &values).unwrap());
                dropout_from(&tape, x, 0.3, 5, first).unwrap().tensor().to_vec().unwrap()
            };
            let expected = run(&Device::cpu(1, 1 << 20).unwrap());
            assert!(expected.iter().enumerate().all(|(i, y)| (*y != 0.0) == keeps(5, first + i, 0.3)));
            every_device().for_each(|device| assert_eq!(run(&device), expected, "{device:?} from {first}"));
        }
    }

    #[test]
    fn masks_have_the_right_share_and_no_relation() {
        let n = 1 << 16;
        let share = |test: &dyn Fn(usize) -> bool| (0..n).filter(|&i| test(i)).count() as f64 / n as f64;
        // Standard deviation of a share of 2^16 draws: at most 0.5/256 = 0.002; five of them.
        for p in [0.1, 0.5, 0.9] {
            assert!((share(&|i| keeps(3, i, p)) - (1.0 - p)).abs() < 0.01, "{p}");
        }
        assert!((share(&|i| keeps(3, i, 0.5) == keeps(4, i, 0.5)) - 0.5).abs() < 0.01);
        assert!((share(&|i| keeps(3, i, 0.5) == keeps(3, i + 1, 0.5)) - 0.5).abs() < 0.01);
    }

    #[test]
    fn it_is_the_identity_outside_of_training() {
        let device = Device::cpu(1, 1 << 20).unwrap();
        let values = Array::random(&[50], 2).f32s();
        let run = |mode, probability| {
            let tape = Tape::new(&device, mode);
            let x = tape.input(Tensor::from_slice(&device, &[50], Role::Data, &values).unwrap());
            dropout(&tape, &x, probability, 1).map(|y| y.tensor().to_vec().unwrap())
        };
        assert_eq!(run(Mode::Eval, 0.5).unwrap(), values);
        assert_eq!(run(Mode::EvalWithGradients, 0.5).unwrap(), values);
        assert_eq!(run(Mode::Train, 0.0).unwrap(), values);
        assert_ne!(run(Mode::Train, 0.5).unwrap(), values);
        for wrong in [1.0, -0.1, f32::NAN] {
            assert!(run(Mode::Train, wrong).unwrap_err().to_string().contains("dropout"));
        }
    }
}
