//! Piecewise layers against the same layers run whole.

use super::blocks::{BlockLayers, chunked_block};
use super::slabs::conv_norm_act_pool;
use crate::device::Device;
use crate::error::Result;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::nn::layers::{Act, Builder, Conv, Linear, NormAct, dropout};
use crate::ops;
use crate::ops::activation::Activation;
use crate::ops::norm_act::ResidualPlace;
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
    let mut all = vec![("output".to_string(), y.tensor().to_vec().unwrap())];
    let weights = Array::random(y.shape(), 77);
    let weights = Tensor::from_slice(&device, &weights.shape, Role::Data, &weights.f32s()).unwrap();
    let loss = dot(&tape, &y, weights).unwrap();
    drop(y);
    tape.backward(loss, parameters).unwrap();
    all.push(("gradient of the input".into(), tape.gradient(&input).unwrap().to_vec().unwrap()));
    for parameter in parameters.iter() {
        all.push((
            parameter.name().into(),
            parameter.gradient().map_or(Vec::new(), |gradient| gradient.to_vec().unwrap()),
        ));
    }
    all.extend(parameters.buffers().map(|(name, value, _)| (name.to_string(), value.to_vec().unwrap())));
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
        let (mut parameters, conv, norm, act) = build();
        let pieces = outcome(&mut parameters, mode, &x, |tape, parameters, x| {
            conv_norm_act_pool(tape, parameters, (&conv, &norm, &act), x)
        });
        // Sums of 160,000 terms in another order, and statistics that differ by a rounding: some units of 2⁻²⁴ of
        // the largest element; gradients of the coefficients are sums of terms of either sign.
        compare(&whole, &pieces, 4e-6);
    }
}

/// The parameters of a decoder block.
struct DecoderBlock {
    first: Linear,
    second: Linear,
    residual: Option<Linear>,
    norms: [NormAct; 2],
    acts: [Act; 2],
}

const LATENT: usize = 6;
const WIDTH: usize = 24;
const DROPOUT: f32 = 0.25;

impl DecoderBlock {
    /// For `features` features of its own and the latent's; with a product as residual if those are not the width.
    fn new(parameters: &mut Parameters, features: usize) -> Self {
        let mut rng = Rng::new(1);
        let mut root = Builder::new(parameters, &mut rng);
        let inputs = if features == WIDTH { features } else { features + LATENT };
        let block = Self {
            first: Linear::new(&mut root.child("first"), inputs, WIDTH, true).unwrap(),
            second: Linear::new(&mut root.child("second"), WIDTH, WIDTH, true).unwrap(),
            residual: (features != WIDTH)
                .then(|| Linear::new(&mut root.child("residual"), inputs, WIDTH, true).unwrap()),
            norms: ["norm1", "norm2"].map(|name| NormAct::conditional(&mut root.child(name), LATENT, WIDTH).unwrap()),
            acts: ["act1", "act2"].map(|name| Act::new(&mut root.child(name), Activation::PADE).unwrap()),
        };
        // Scale and shift start independent of the latent: here they depend on it.
        for (i, parameter) in parameters.iter_mut().enumerate().filter(|(_, p)| p.name().contains("linear_")) {
            let values = Array::random(parameter.value().shape(), i as u64).map(|x| 0.3 * x + 0.5);
            parameter.value_and_gradient().0.write(&values.f32s()).unwrap();
        }
        block
    }

    fn latent(tape: &Tape) -> Var {
        let latent = Array::random(&[2, LATENT], 8);
        tape.constant(Tensor::from_slice(tape.device(), &latent.shape, Role::Data, &latent.f32s()).unwrap())
    }

    fn whole(&self, tape: &Tape, parameters: &Parameters, x: &Var) -> Result<Var> {
        let latent = Self::latent(tape);
        let shared = self.residual.is_some().then_some(&latent);
        let (h, residual) = self.first.forward_with_stats(tape, parameters, x, shared, self.residual.as_ref())?;
        let h = self.norms[0].forward(tape, parameters, h, Some(&latent), None, Some(&self.acts[0]))?;
        let k = self.second.forward(tape, parameters, &dropout(tape, h, DROPOUT)?)?;
        let residual = Some((residual.as_ref().unwrap_or(x), ResidualPlace::BeforeActivation));
        self.norms[1].forward(tape, parameters, &k, Some(&latent), residual, Some(&self.acts[1]))
    }

    fn chunked(&self, tape: &Tape, parameters: &Parameters, x: &Var) -> Result<Var> {
        let latent = Self::latent(tape);
        let layers = BlockLayers {
            first: &self.first,
            first_norm: &self.norms[0],
            first_act: &self.acts[0],
            dropout: DROPOUT,
            second: &self.second,
            second_norm: &self.norms[1],
            second_act: &self.acts[1],
            residual: self.residual.as_ref(),
        };
        let shared = self.residual.as_ref().map(|_| &latent);
        chunked_block(tape, parameters, &layers, [x, &latent], shared)
    }
}

#[test]
fn a_decoder_block_in_chunks_is_the_block() {
    // A product as residual, and x itself; two volumes of a whole and a broken chunk each.
    for features in [10, WIDTH] {
        let x = Array::random(&[2 * 2500, features], 5);
        let device = Device::cpu(2, 1 << 28).unwrap();
        let run = |chunks: bool, again: bool| {
            let mut parameters = Parameters::new(&device);
            let block = DecoderBlock::new(&mut parameters, features);
            outcome(&mut parameters, Mode::Train, &x, |tape, parameters, x| match (chunks, again) {
                (false, _) => block.whole(tape, parameters, x),
                (true, false) => block.chunked(tape, parameters, x),
                (true, true) => tape.recomputed(|| block.chunked(tape, parameters, x)),
            })
        };
        let (whole, chunks) = (run(false, false), run(true, false));
        // The forward pass is the same bit for bit, statistics included; sums over points are taken in another order:
        // f32 sums of 5,000 terms of either sign, in parts of at most 2,048.
        assert_eq!(whole[0], chunks[0]);
        compare(&whole, &chunks, 1e-5);
        assert_eq!(chunks, run(true, true));
    }
}
