//! An op with several outputs: gradients flow through each, and each is recomputed for itself.

use std::cell::RefCell;
use std::rc::Rc;

use ossnet::Result;
use ossnet::device::{Backend, Device};
use ossnet::memory::Role;
use ossnet::nn::Parameters;
use ossnet::ops::{self, Cost, Needs, Op};
use ossnet::tape::{Backward, Mode, OutputSpec, Tape, Var};
use ossnet::tensor::{DType, Shape, Tensor};

use crate::common::dot::dot;

const A: [f32; 2] = [3.0, 5.0];
const B: [f32; 2] = [1.0, 2.0];

/// Sum and difference of two inputs, and the first input's largest element, a constant. It notes which it was asked for.
struct SumAndDifference {
    asked: Rc<RefCell<Vec<[bool; 3]>>>,
}

impl Op for SumAndDifference {
    fn name(&self) -> &'static str {
        "sum_and_difference"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        Ok(inputs[0].to_vec())
    }

    fn further_outputs(&self, inputs: &[&[usize]]) -> Vec<OutputSpec> {
        let difference = OutputSpec { shape: inputs[0].to_vec(), dtype: DType::F32, constant: false };
        vec![difference, OutputSpec { shape: vec![1], dtype: DType::F32, constant: true }]
    }

    fn forward(&self, _: &Device, _: &[&Tensor], _: &mut Tensor) -> Result<()> {
        unreachable!("an op with several outputs is asked for those that are wanted")
    }

    fn forward_several(&self, device: &Device, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
        self.asked.borrow_mut().push([0, 1, 2].map(|k| outputs[k].is_some()));
        let Backend::Cpu { .. } = device.backend() else { return Ok(()) };
        let (a, b) = (inputs[0].data(), inputs[1].data());
        let pairs = || a.iter().zip(b);
        let values: [Vec<f32>; 3] = [
            pairs().map(|(a, b)| a + b).collect(),
            pairs().map(|(a, b)| a - b).collect(),
            vec![a.iter().copied().fold(f32::MIN, f32::max)],
        ];
        for (output, values) in outputs.iter_mut().zip(values) {
            if let Some(output) = output {
                output.data_mut().copy_from_slice(&values);
            }
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        for (output, sign) in [(0, 1.0), (1, -1.0)] {
            let Some(dy) = backward.gradient_of(output) else { continue };
            for (input, factor) in [(0, 1.0), (1, sign)] {
                let gradient: Vec<f32> = dy.to_vec()?.iter().map(|dy| factor * dy).collect();
                let gradient = Tensor::from_slice(backward.device(), dy.shape(), Role::Transient, &gradient)?;
                backward.accumulate(input, gradient)?;
            }
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn forward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }

    fn backward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }
}

fn tensor(device: &Device, values: &[f32]) -> Tensor {
    Tensor::from_slice(device, &[values.len()], Role::Data, values).unwrap()
}

/// Gradients of both inputs for a loss of the outputs, and what the op was asked for, run by run.
fn gradients(recomputed: bool, loss: impl Fn(&Tape, Vec<Var>) -> Var) -> ([Vec<f32>; 2], Vec<[bool; 3]>) {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let inputs = [A, B].map(|values| tape.input(tensor(&device, &values)));
    let asked = Rc::default();
    let op = SumAndDifference { asked: Rc::clone(&asked) };
    let apply = || tape.apply_several(op, &[&inputs[0], &inputs[1]]).unwrap();
    let outputs = if recomputed { tape.recomputed(apply) } else { apply() };
    assert_eq!(outputs[2].tensor().to_vec().unwrap(), [5.0]);
    assert!(!outputs[2].needs_gradient());
    let loss = loss(&tape, outputs);
    tape.backward(loss, &mut Parameters::new(&device)).unwrap();
    let gradients = inputs.each_ref().map(|input| tape.gradient(input).unwrap().to_vec().unwrap());
    drop((tape, inputs));
    assert_eq!(device.live().total(), 0);
    let asked = asked.borrow().clone();
    (gradients, asked)
}

/// `Σ w·y` of a var.
fn weighted(tape: &Tape, var: &Var, weights: [f32; 2]) -> Var {
    dot(tape, var, tensor(tape.device(), &weights)).unwrap()
}

#[test]
fn gradients_of_all_outputs_are_summed() {
    let (found, asked) = gradients(false, |tape, outputs| {
        let [sum, difference] = [weighted(tape, &outputs[0], [1.0, 2.0]), weighted(tape, &outputs[1], [10.0, 20.0])];
        ops::add(tape, &sum, &difference).unwrap()
    });
    assert_eq!(found, [vec![11.0, 22.0], vec![-9.0, -18.0]]);
    assert_eq!(asked, [[true; 3]]);
}

#[test]
fn an_output_that_nobody_reads_has_no_gradient() {
    for (output, expected) in [(0, [vec![1.0, 2.0], vec![1.0, 2.0]]), (1, [vec![1.0, 2.0], vec![-1.0, -2.0]])] {
        let (found, _) = gradients(false, |tape, outputs| weighted(tape, &outputs[output], [1.0, 2.0]));
        assert_eq!(found, expected);
    }
}

/// A sigmoid reads its result, which is a function of the difference: that alone is recomputed, and no constant is.
#[test]
fn an_output_is_recomputed_alone() {
    let loss = |tape: &Tape, outputs: Vec<Var>| {
        let read = tape.recomputed(|| ops::sigmoid(tape, &outputs[1])).unwrap();
        drop(outputs);
        weighted(tape, &read, [1.0, 2.0])
    };
    let (kept, once) = gradients(false, loss);
    let (again, twice) = gradients(true, loss);
    assert_eq!(kept, again);
    assert_eq!(once, [[true; 3]]);
    assert_eq!(twice, [[true; 3], [false, true, false]]);
    let difference: Vec<f32> = A.iter().zip(B).map(|(a, b)| a - b).collect();
    for (k, x) in difference.iter().enumerate() {
        let s = 1.0 / (1.0 + (-x).exp());
        let expected = [1.0, 2.0][k] * s * (1.0 - s);
        // One rounding each of exp, sum, quotient and two products.
        assert!((kept[0][k] - expected).abs() <= 5.0 * f32::EPSILON * expected, "{} {expected}", kept[0][k]);
        assert_eq!(kept[1][k], -kept[0][k]);
    }
}
