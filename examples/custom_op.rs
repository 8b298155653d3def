//! Your own op: `y = x²`, with its gradient, on the tape beside the engine's.
//!
//! `cargo run --release --example custom_op`

use ossnet::device::{Backend, Device};
use ossnet::memory::{Role, default_cpu_budget};
use ossnet::ops::{Cost, Needs, Op};
use ossnet::tape::{Backward, Mode, Tape};
use ossnet::tensor::{Shape, Tensor};

/// `y = x²`, `dx = 2·x·dy`.
struct Square;

impl Op for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> ossnet::Result<Shape> {
        Ok(inputs[0].to_vec())
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> ossnet::Result<()> {
        // A plan counts bytes only; a kernel for another device would be one more arm.
        if let Backend::Cpu { .. } = device.backend() {
            output.data_mut().iter_mut().zip(inputs[0].data()).for_each(|(y, x)| *y = x * x);
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> ossnet::Result<()> {
        let (x, dy) = (backward.value(0)?, backward.gradient().clone());
        backward.write_gradient(0, |device, dx, accumulate| {
            if let Backend::Cpu { .. } = device.backend() {
                for ((dx, x), dy) in dx.data_mut().iter_mut().zip(x.data()).zip(dy.data()) {
                    *dx = 2.0 * x * dy + if accumulate { *dx } else { 0.0 };
                }
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0])
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: len, bytes: 8 * len }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 2 * len, bytes: 12 * len }
    }
}

/// The program; a test runs it too.
pub fn main() -> ossnet::Result<()> {
    let device = Device::cpu(1, default_cpu_budget())?;
    let tape = Tape::new(&device, Mode::Train);
    let x = tape.input(Tensor::from_slice(&device, &[1], Role::Data, &[3.0])?);
    let square = tape.apply(Square, &[&x])?;
    let fourth = tape.apply(Square, &[&square])?;
    println!("x = 3, (x²)² = {:?}", fourth.tensor().to_vec()?);
    drop(square);
    tape.backward(fourth, &mut ossnet::nn::Parameters::new(&device))?;
    let gradient = tape.gradient(&x).map(|gradient| gradient.to_vec()).transpose()?;
    println!("its derivative 4·x³ = {gradient:?}");
    assert_eq!(gradient, Some(vec![108.0]));
    println!("bytes the ledger holds: {}", device.live().total());
    Ok(())
}
