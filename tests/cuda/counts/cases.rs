//! The ops of training, each at a size large enough for its kernels to run as they do in earnest.

use ossnet::error::Result;
use ossnet::memory::Role;
use ossnet::models::Recompute;
use ossnet::nn::optim::{Optimizer, OptimizerSettings, note_loss};
use ossnet::nn::{ParameterKind, Parameters};
use ossnet::ops::conv3d::ConvGeometry;
use ossnet::ops::patch_conv::PatchSource;
use ossnet::ops::patch_sample::{PatchOptions, Pooling};
use ossnet::ops::{
    self, Activation, AlignCorners, BinaryLoss, CrossEntropy, Grouping, NormActArgs, Prediction, ResidualPlace,
};
use ossnet::planner::Workload;
use ossnet::tape::{Mode, Tape, Var};
use ossnet::tensor::{DType, Tensor};
use ossnet::train::batch::widened;
use ossnet::train::dry_run::{StepSizes, SyntheticStep};
use ossnet::train::ema::Ema;
use ossnet::train::grad_clip::clip;

use super::bench::{Bench, Case};

const fn case(name: &'static str, run: fn(&Bench) -> Result<()>) -> Case {
    Case { name, run, only: &[] }
}

/// A volume of sixteen channels, and one row for each of its voxels.
const VOLUME: [usize; 5] = [2, 16, 16, 16, 16];

/// The ops of training.
pub const CASES: [Case; 72] = [
    case("activation 131072 identity", |b| normalised(b, Activation::Identity)),
    case("activation 131072 leaky", |b| activation(b, Activation::LeakyRelu(0.1))),
    case("activation 131072 prelu", |b| activation(b, Activation::PRelu)),
    case("activation 131072 selu", |b| activation(b, Activation::Selu)),
    case("activation 131072 swish", |b| activation(b, Activation::Swish)),
    case("activation 131072 softplus", |b| activation(b, Activation::Softplus)),
    case("activation 131072 tanh", |b| activation(b, Activation::Tanh)),
    case("activation 131072 sigmoid", |b| activation(b, Activation::Sigmoid)),
    case("activation 131072 pade 5/4", |b| activation(b, pade(5, 4))),
    case("activation 131072 pade 3/3", |b| activation(b, pade(3, 3))),
    case("activation 131072 pade 4/4", |b| activation(b, pade(4, 4))),
    case("activation 131072 pade 5/5", |b| activation(b, pade(5, 5))),
    case("activation 131072 pade 6/6", |b| activation(b, pade(6, 6))),
    case("activation 131072 pade 7/7", |b| activation(b, pade(7, 7))),
    case("activation 131072 pade 8/8", |b| activation(b, pade(8, 8))),
    case("norm_act 2×16³×16 channel", |b| norm_act(b, &VOLUME, Grouping::Channel, false)),
    case("norm_act 2×16³×16 instance", |b| norm_act(b, &VOLUME, Grouping::Instance { batch: 2 }, false)),
    case("norm_act 2×1024×256 scalar, conditional", |b| norm_act(b, &[2, 1024, 256], Grouping::Scalar, true)),
    case("norm_act 32³×3 channel", |b| norm_act(b, &[1, 32, 32, 32, 3], Grouping::Channel, false)),
    case("moments 2×16³×16 channel", |b| moments(b, Grouping::Channel)),
    case("moments 2×16³×16 scalar", |b| moments(b, Grouping::Scalar)),
    case("add 131072", |b| b.op(&[&VOLUME, &VOLUME], vec![], |t, v| ops::add(t, &v[0], &v[1]))),
    case("scale_add 131072", |b| b.op(&[&VOLUME, &VOLUME], vec![], |t, v| ops::scale_add(t, &v[0], &v[1], 0.5))),
    case("sum of three gradients 131072", |b| {
        b.op(&[&VOLUME], vec![], |t, v| ops::add(t, &ops::add(t, &v[0], &v[0])?, &v[0]))
    }),
    case("finite 131072", |b| {
        let x = b.tensor(&VOLUME)?;
        b.start();
        ops::first_not_finite(&b.device, &[&x]).map(|_| ())
    }),
    case("dropout 131072", |b| b.op(&[&VOLUME], vec![], |t, v| ops::dropout(t, &v[0], 0.25, 7))),
    case("sigmoid 131072", |b| b.op(&[&VOLUME], vec![], |t, v| ops::sigmoid(t, &v[0]))),
    case("softmax 16384×4", |b| b.op(&[&[16384, 4]], vec![], |t, v| ops::softmax(t, &v[0]))),
    case("softmax 4096×33", |b| b.op(&[&[4096, 33]], vec![], |t, v| ops::softmax(t, &v[0]))),
    case("concat 16384×(16+48)", |b| {
        b.op(&[&[16384, 16], &[16384, 48]], vec![], |t, v| ops::concat(t, &[&v[0], &v[1]]))
    }),
    case("select 64×8×256", |b| b.op(&[&[64, 8, 256]], vec![], |t, v| ops::select(t, &v[0], 3))),
    case("transpose_channels 2×4096×16", |b| {
        b.op(&[&[2, 4096, 16]], vec![], |t, v| ops::transpose_channels(t, &v[0]))
    }),
    case("fourier_features 4096×3×32", |b| {
        b.op(&[&[4096, 3], &[3, 32]], vec![], |t, v| ops::fourier_features(t, &v[0], &v[1]))
    }),
    case("avg_pool 32³×4, 2³", |b| pool(b, &[1, 32, 32, 32, 4], true)),
    case("avg_pool 2×16³×16, 2³", |b| pool(b, &VOLUME, true)),
    case("max_pool 2×16³×16, 2³", |b| pool(b, &VOLUME, false)),
    case("adaptive_max_pool 2×16³×16, 5³", |b| {
        b.op(&[&VOLUME], vec![], |t, v| ops::adaptive_max_pool(t, &v[0], [5; 3]))
    }),
    case("resize 8³ to 16³×16", |b| {
        b.op(&[&[1, 8, 8, 8, 16]], vec![], |t, v| ops::resize(t, &v[0], [16; 3], AlignCorners::Free))
    }),
    case("conv3d 3³, 8 to 16 at 16³", |b| conv(b, [16; 3], [8, 16], 3, 1)),
    case("conv3d 3³, 16 to 32 at 12³", |b| conv(b, [12; 3], [16, 32], 3, 1)),
    case("conv3d 3³, 32 to 64 at 8³", |b| conv(b, [8; 3], [32, 64], 3, 1)),
    case("conv3d 3³ stride 2, 16 to 32 at 16³", |b| conv(b, [16; 3], [16, 32], 3, 2)),
    case("conv3d 1³, 128 to 128 at 32×32×16", |b| conv(b, [32, 32, 16], [128, 128], 1, 1)),
    case("conv3d 1×1×3, 8 to 128 at 32×32×16", |b| line(b, [32, 32, 16], [8, 128])),
    case("conv3d_measured 3³, 8 to 16 at 16³", |b| measured(b, [16; 3], [8, 16])),
    case("conv3d_measured 3³, 16 to 32 at 12³", |b| measured(b, [12; 3], [16, 32])),
    case("conv3d_measured 3³, 16 to 64 at 8³", |b| measured(b, [8; 3], [16, 64])),
    case("conv_transpose3d 3³ stride 2, 16 to 8 at 8³", conv_transpose),
    case("linear 8192, 64 to 16", |b| linear(b, 8192, [64, 16])),
    case("linear 8192, 32 to 32", |b| linear(b, 8192, [32, 32])),
    case("linear 2048, 64 to 64", |b| linear(b, 2048, [64, 64])),
    case("linear 16384, 128 to 128", |b| linear(b, 16384, [128, 128])),
    case("patch_sample 128 of 32³×4", |b| patches(b, &[1, 32, 32, 32, 4], 128, None)),
    case("patch_sample 128 of 32³×1 with mid-range", |b| {
        patches(b, &[1, 32, 32, 32, 1], 128, Some(Pooling::Average))
    }),
    case("patch_sample 32 of 16³×1, gradients", patch_gradients),
    case("patch_conv 128 of 4 to 4", patch_conv),
    case("binary_loss 131072", |b| binary(b, 1.0)),
    case("binary_loss 131072, worst tenth", |b| binary(b, 0.1)),
    case("cross_entropy 16384×4", |b| cross_entropy(b, &[16384, 4], false)),
    case("cross_entropy 2×4096×4, reference", |b| cross_entropy(b, &[2, 4096, 4], true)),
    case("dice_loss 2×16³×4", |b| {
        let labels = b.filled(&[2, 16, 16, 16, 1], |i| (i % 4) as f32)?;
        b.op(&[&[2, 16, 16, 16, 4]], vec![labels], |t, v| ops::dice_loss(t, &v[0], &v[1], ops::SoftDice::default()))
    }),
    case("optimizer 200 × 4096, lookahead", |b| optimizer(b, 200, 4096)),
    case("optimizer 8 × 65536, lookahead", |b| optimizer(b, 8, 65536)),
    case("update_running 16 channels", update_running),
    case("labels 131072 of bytes", |b| {
        let bytes = Tensor::zeros_of(&b.device, &[131_072], DType::U8, Role::Data)?;
        b.start();
        widened(&bytes).map(|_| ())
    }),
    case("guard of a loss", |b| {
        let (loss, mut guard) = (b.tensor(&[1])?, b.tensor(&[1])?);
        b.start();
        note_loss(&loss, &mut guard)
    }),
    case("64 numbers from the host", numbers_from_the_host),
    case("clip and average 200 × 4096", clip_and_average),
    Case {
        name: "encoder of oss-net-c in slabs, 32³",
        run: encoder_in_slabs,
        only: &["moments_merge", "norm_through"],
    },
    case("linear 16384, 4 to 128", |b| linear(b, 16384, [4, 128])),
    case("linear 65536, 128 to 128, weight gradient", weight_gradient),
    case("conv3d 1³ padded, 128 to 128 at 64×32×32, weight gradient", conv_weight_gradient),
];

const fn pade(numerator: usize, denominator: usize) -> Activation {
    Activation::Pade { numerator, denominator }
}

/// An activation with its parameters.
fn activation(b: &Bench, function: Activation) -> Result<()> {
    let learnt = function.initial_parameters()?;
    let shapes: Vec<Vec<usize>> = learnt.iter().map(|values| vec![values.len()]).collect();
    let inputs: Vec<&[usize]> = std::iter::once(&VOLUME[..]).chain(shapes.iter().map(Vec::as_slice)).collect();
    b.op(&inputs, vec![], |t, v| ops::activation(t, &v[0], function, &v[1..].iter().collect::<Vec<_>>()))
}

/// A batch norm without scale and shift in front of an activation.
fn normalised(b: &Bench, activation: Activation) -> Result<()> {
    b.op(&[&VOLUME], vec![], |t, v| {
        let statistics = ops::moments(t, &v[0], Grouping::Channel)?;
        let statistics = (&statistics, Grouping::Channel);
        ops::norm_act(
            t,
            &v[0],
            &NormActArgs {
                statistics: Some(statistics),
                through_statistics: true,
                activation,
                ..NormActArgs::default()
            },
        )
    })
}

/// Norm, scale, shift, residual and 5/4 Padé units; `conditional`: scale and shift for each item.
fn norm_act(b: &Bench, shape: &[usize], grouping: Grouping, conditional: bool) -> Result<()> {
    let channels = shape[shape.len() - 1];
    let per_item = [shape[0], channels];
    let vector: &[usize] = if conditional { &per_item } else { &per_item[1..] };
    let statistics = b.filled(&[2, grouping.groups(channels)], |i| i as f32 / 1000.0 + 0.5)?;
    b.op(&[shape, vector, vector, shape, &[6], &[4]], vec![statistics], |t, v| {
        let parts = NormActArgs {
            statistics: Some((&v[6], grouping)),
            through_statistics: true,
            gamma: Some(&v[1]),
            beta: Some(&v[2]),
            residual: Some((&v[3], ResidualPlace::BeforeActivation)),
            activation: pade(5, 4),
            parameters: &[&v[4], &v[5]],
            ..NormActArgs::default()
        };
        ops::norm_act(t, &v[0], &parts)
    })
}

fn moments(b: &Bench, grouping: Grouping) -> Result<()> {
    let tape = Tape::new(&b.device, Mode::Eval);
    let x = tape.constant(b.tensor(&VOLUME)?);
    b.start();
    ops::moments(&tape, &x, grouping).map(|_| ())
}

fn pool(b: &Bench, shape: &[usize], average: bool) -> Result<()> {
    b.op(&[shape], vec![], |t, v| match average {
        true => ops::avg_pool(t, &v[0], [2; 3], [2; 3]),
        false => ops::max_pool(t, &v[0], [2; 3], [2; 3]),
    })
}

fn conv(b: &Bench, [d, h, w]: [usize; 3], [from, to]: [usize; 2], side: usize, stride: usize) -> Result<()> {
    let geometry = ConvGeometry { stride: [stride; 3], padding: [side / 2; 3] };
    b.op(&[&[1, d, h, w, from], &[to, from, side, side, side], &[to]], vec![], |t, v| {
        ops::conv3d(t, &v[0], &v[1], Some(&v[2]), geometry)
    })
}

fn line(b: &Bench, [d, h, w]: [usize; 3], [from, to]: [usize; 2]) -> Result<()> {
    let geometry = ConvGeometry { stride: [1; 3], padding: [0, 0, 1] };
    b.op(&[&[1, d, h, w, from], &[to, from, 1, 1, 3], &[to]], vec![], |t, v| {
        ops::conv3d(t, &v[0], &v[1], Some(&v[2]), geometry)
    })
}

fn measured(b: &Bench, [d, h, w]: [usize; 3], [from, to]: [usize; 2]) -> Result<()> {
    let geometry = ConvGeometry { stride: [1; 3], padding: [1; 3] };
    b.op(&[&[1, d, h, w, from], &[to, from, 3, 3, 3], &[to]], vec![], |t, v| {
        Ok(ops::conv3d_with_stats(t, &v[0], &v[1], Some(&v[2]), geometry, Grouping::Channel)?.value)
    })
}

fn conv_transpose(b: &Bench) -> Result<()> {
    let geometry = ConvGeometry { stride: [2; 3], padding: [1; 3] };
    b.op(&[&[1, 8, 8, 8, 16], &[16, 8, 3, 3, 3], &[8]], vec![], |t, v| {
        ops::conv_transpose3d(t, &v[0], &v[1], Some(&v[2]), geometry, [1; 3])
    })
}

fn linear(b: &Bench, rows: usize, [from, to]: [usize; 2]) -> Result<()> {
    b.op(&[&[rows, from], &[to, from], &[to]], vec![], |t, v| ops::linear(t, &v[0], &v[1], None, Some(&v[2])))
}

/// The one product whose tile of 128 × 128 needs many rows: the weight's gradient alone.
fn weight_gradient(b: &Bench) -> Result<()> {
    let x = b.tensor(&[65536, 128])?;
    let tape = Tape::new(&b.device, Mode::Train);
    let (x, weight) = (tape.constant(x), tape.input(b.tensor(&[128, 128])?));
    let dy = b.tensor(&[65536, 128])?;
    let y = ops::linear(&tape, &x, &weight, None, None)?;
    b.start();
    tape.pull(vec![(y, dy)])
}

fn conv_weight_gradient(b: &Bench) -> Result<()> {
    let tape = Tape::new(&b.device, Mode::Train);
    let (x, weight) = (tape.constant(b.tensor(&[1, 64, 32, 30, 128])?), tape.input(b.tensor(&[128, 128, 1, 1, 1])?));
    let dy = b.tensor(&[1, 64, 32, 32, 128])?;
    let y = ops::conv3d(&tape, &x, &weight, None, ConvGeometry { stride: [1; 3], padding: [0, 0, 1] })?;
    b.start();
    tape.pull(vec![(y, dy)])
}

/// Whole coordinates, as training draws them.
fn coordinates(b: &Bench, points: usize, side: usize) -> Result<ossnet::tensor::Tensor> {
    b.filled(&[points, 3], |i| (i * 7919 % side) as f32)
}

fn patches(b: &Bench, volume: &[usize], points: usize, mid_range: Option<Pooling>) -> Result<()> {
    let tape = Tape::new(&b.device, Mode::Eval);
    let (volume, points) = (tape.constant(b.tensor(volume)?), tape.constant(coordinates(b, points, volume[1])?));
    b.start();
    ops::patch_sample(&tape, &volume, &points, PatchOptions { mid_range }).map(|_| ())
}

fn patch_gradients(b: &Bench) -> Result<()> {
    b.op(&[&[1, 16, 16, 16, 1], &[32, 3]], vec![], |t, v| {
        ops::patch_sample(t, &v[0], &v[1], PatchOptions { mid_range: Some(Pooling::Average) })
    })
}

fn patch_conv(b: &Bench) -> Result<()> {
    let constants = vec![b.tensor(&[1, 32, 32, 32, 4])?, coordinates(b, 128, 32)?];
    b.op(&[&[4, 4, 7, 7, 7], &[4]], constants, |t, v| {
        let source =
            PatchSource::Volume { volume: &v[2], coordinates: &v[3], options: PatchOptions { mid_range: None } };
        ops::patch_conv(t, source, &v[0], Some(&v[1]))
    })
}

fn binary(b: &Bench, keep: f64) -> Result<()> {
    let labels = b.filled(&[131072, 1], |i| (i % 3 / 2) as f32)?;
    b.op(&[&[131072, 1]], vec![labels], |t, v| {
        ops::binary_loss(t, &v[0], &v[1], BinaryLoss { keep, ..BinaryLoss::default() })
    })
}

fn cross_entropy(b: &Bench, shape: &[usize], reference: bool) -> Result<()> {
    let label_shape: Vec<usize> = [&shape[..shape.len() - 1], &[1]].concat();
    let labels = b.filled(&label_shape, |i| (i % 4) as f32)?;
    let prediction = if reference { Prediction::Probabilities } else { Prediction::Logits };
    b.op(&[shape], vec![labels], |t, v| {
        ops::cross_entropy(t, &v[0], &v[1], CrossEntropy { prediction, reference, ..CrossEntropy::default() })
    })
}

fn optimizer(b: &Bench, tensors: usize, length: usize) -> Result<()> {
    let mut parameters = Parameters::new(&b.device);
    for i in 0..tensors {
        parameters.add(format!("layer.{i}"), ParameterKind::Weight, &[length], |values| values.fill(0.5))?;
    }
    let mut optimizer = Optimizer::new(OptimizerSettings::default(), &parameters)?;
    for parameter in parameters.iter_mut() {
        parameter.set_gradient(b.tensor(&[length])?);
    }
    // The sixth step is the first at which slow and fast weights meet.
    for _ in 0..5 {
        optimizer.step(&mut parameters, 1.0)?;
    }
    b.start();
    optimizer.step(&mut parameters, 1.0)
}

/// Gradients that are too long, and the moving average of the weights.
fn clip_and_average(b: &Bench) -> Result<()> {
    let mut parameters = Parameters::new(&b.device);
    for i in 0..200 {
        parameters.add(format!("layer.{i}"), ParameterKind::Weight, &[4096], |values| values.fill(0.5))?;
    }
    for parameter in parameters.iter_mut() {
        parameter.set_gradient(b.tensor(&[4096])?);
    }
    let mut average = Ema::new(0.9, &parameters)?;
    b.start();
    clip(&mut parameters, 1.0, 1)?;
    average.update(&parameters, 1)
}

/// What only a norm that runs in pieces needs.
fn encoder_in_slabs(b: &Bench) -> Result<()> {
    let sizes = StepSizes { recompute: Recompute::Blocks, ..StepSizes::new([32; 3], 1, 32) };
    let workload = Workload::official("oss-net-c", sizes)?;
    let mut stage = SyntheticStep::new(&b.device, &*workload.network, sizes)?;
    b.start();
    stage.step()
}

/// Few enough to travel in a kernel's arguments.
fn numbers_from_the_host(b: &Bench) -> Result<()> {
    b.start();
    b.tensor(&[64]).map(|_| ())
}

fn update_running(b: &Bench) -> Result<()> {
    let mut parameters = Parameters::new(&b.device);
    let buffer = parameters.add_buffer("norm.running", &[2, 16], |values| values.fill(1.0))?;
    let tape = Tape::new(&b.device, Mode::Train);
    let x: Var = tape.constant(b.tensor(&VOLUME)?);
    let statistics = ops::moments(&tape, &x, Grouping::Channel)?;
    tape.update_buffer(buffer, &statistics, 8192, 0.1);
    b.start();
    tape.apply_buffer_updates(&mut parameters)
}
