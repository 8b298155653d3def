//! Piecewise layers against the same layers run whole.

use super::slabs::conv_norm_act_pool;
use crate::device::Device;
use crate::error::Result;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::nn::layers::{Act, Builder, Conv, NormAct};
use crate::ops;
use crate::ops::activation::Activation;
use crate::ops::testing::{Array, dot};
use crate::rng::Rng;
use crate::tape::{Mode, Tape, Var};
use crate::tensor::Tensor;

/// Output, gradient of the input, gradients of the parameters, running statistics.
type Outcome = Vec<(String, Vec<f32>)>;

/// Runs `layer` on `x` in training, and backwards from a random linear function of its output.
fn outcome(
    parameters: &mut Parameters,
    mode: Mode,
    x: &Array,
    layer: impl Fn(&Tape, &Parameters, &Var) -> Result<Var>,
) -> Outcome {
    let device = parameters.device().clone();
    let tape = Tape::new(&device, mode).with_seed(3);
    let input = tape.input(Tensor::from_slice(&device, &x.shape, Role::Data, &x.f32s()).unwrap());
    let y = layer(&tape, parameters, &input).unwrap();
    let mut all = vec![("output".to_string(), y.tensor().to_vec())];
    let weights = Array::random(y.shape(), 77);
    let weights = Tensor::from_slice(&device, &weights.shape, Role::Data, &weights.f32s()).unwrap();
    let loss = dot(&tape, &y, weights).unwrap();
    drop(y);
    tape.backward(loss, parameters).unwrap();
    all.push(("gradient of the input".into(), tape.gradient(&input).unwrap().to_vec()));
    for parameter in parameters.iter() {
        all.push((parameter.name().into(), parameter.gradient().map(Tensor::to_vec).unwrap_or_default()));
    }
    all.extend(parameters.buffers().map(|(name, value, _)| (name.to_string(), value.to_vec())));
    parameters.clear_gradients();
    all
}

/// Every element agrees to `tolerance` of the largest of its array.
fn compare(whole: &Outcome, pieces: &Outcome, tolerance: f32) {
    for ((name, whole), (other, pieces)) in whole.iter().zip(pieces) {
        assert_eq!((name, whole.len()), (other, pieces.len()));
        let largest = whole.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for (i, (a, b)) in whole.iter().zip(pieces).enumerate() {
            assert!((a - b).abs() <= tolerance * largest, "{name}[{i}]: {a} whole, {b} in pieces, largest {largest}");
        }
    }
}

#[test]
fn an_encoder_block_in_slabs_is_the_block() {
    // Two planes of 128×128×64 are a slab's most: slabs of two and of three planes, the last without a partner to pool.
    let x = Array::random(&[2, 5, 128, 128, 3], 5);
    let build = || {
        let device = Device::cpu(2, 1 << 30).unwrap();
        let mut parameters = Parameters::new(&device);
        let mut rng = Rng::new(1);
        let mut builder = Builder::new(&mut parameters, &mut rng);
        let conv = Conv::new(&mut builder.child("conv"), 3, 64, [3; 3], [1; 3], [1; 3], false).unwrap();
        let norm = NormAct::batch(&mut builder.child("norm"), 64).unwrap();
        let act = Act::new(&mut builder.child("act"), Activation::PADE).unwrap();
        (parameters, conv, norm, act)
    };
    for mode in [Mode::Train, Mode::EvalWithGradients] {
        let (mut parameters, conv, norm, act) = build();
        let whole = outcome(&mut parameters, mode, &x, |tape, parameters, x| {
            let y = conv.forward(tape, parameters, x)?;
            let y = norm.forward(tape, parameters, &y, None, None, Some(&act))?;
            ops::avg_pool(tape, &y, [2; 3], [2; 3])
        });
        for keep in [true, false] {
            let (mut parameters, conv, norm, act) = build();
            let pieces = outcome(&mut parameters, mode, &x, |tape, parameters, x| {
                conv_norm_act_pool(tape, parameters, (&conv, &norm, &act), x, keep)
            });
            // Sums of 160,000 terms in another order, and statistics that differ by a rounding: some units of 2⁻²⁴ of
            // the largest element; gradients of the coefficients are sums of terms of either sign.
            compare(&whole, &pieces, 4e-6);
        }
    }
}
