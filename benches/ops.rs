//! How fast is each op, forward and backward, at the sizes that training steps have?
//!
//! Throughput counts an op's own [`ossnet::ops::Cost`]: "elements" are floating-point operations of the plain formula (fast
//! algorithms may do fewer), bytes are those that must move. A backward pass makes the gradients of all inputs that are
//! not constants; its forward pass is not timed.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

use ossnet::Result;
use ossnet::device::Device;
use ossnet::memory::{Role, default_cpu_budget};
use ossnet::nn::Parameters;
use ossnet::ops::conv3d::ConvGeometry;
use ossnet::ops::patch_conv::PatchSource;
use ossnet::ops::patch_sample::{PatchOptions, Pooling};
use ossnet::ops::{
    self, Activation, AlignCorners, BinaryLoss, Cost, CrossEntropy, Grouping, NormActArgs, Op, ResidualPlace,
};
use ossnet::rng::Rng;
use ossnet::tape::{Backward, Mode, Tape, Var};
use ossnet::tensor::{Shape, Tensor};

/// Points of an official training step.
const POINTS: usize = 1 << 14;

/// Where all benches run: every core, the best instruction set.
fn device() -> Device {
    Device::cpu(0, default_cpu_budget()).expect("address range")
}

/// An input of an op.
struct Leaf {
    tensor: Tensor,
    constant: bool,
}

/// Uniform noise in `[-1, 1)`, whose gradient is wanted.
fn noise(device: &Device, shape: &[usize]) -> Leaf {
    uniform(device, shape, -1.0, 1.0)
}

fn uniform(device: &Device, shape: &[usize], low: f32, high: f32) -> Leaf {
    let mut rng = Rng::new(shape.iter().sum::<usize>() as u64);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| low + (high - low) * rng.uniform()).collect();
    Leaf { tensor: Tensor::from_slice(device, shape, Role::Data, &values).expect("memory"), constant: false }
}

/// A leaf with the given elements.
fn given(device: &Device, shape: &[usize], values: &[f32]) -> Leaf {
    Leaf { tensor: Tensor::from_slice(device, shape, Role::Data, values).expect("memory"), constant: false }
}

impl Leaf {
    /// The same leaf, to be treated as data: no gradient flows to it.
    fn constant(self) -> Self {
        Self { constant: true, ..self }
    }

    /// The elements rounded down: classes, voxel indices.
    fn whole(mut self) -> Self {
        self.tensor.data_mut().iter_mut().for_each(|value| *value = value.floor());
        self
    }
}

/// Hands a ready-made gradient to an output, so that a backward pass consists of the op under test alone.
struct Seed {
    gradient: RefCell<Option<Tensor>>,
}

impl Op for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn output_shape(&self, _: &[&[usize]]) -> Result<Shape> {
        Ok(vec![1])
    }

    fn forward(&self, _: &Device, _: &[&Tensor], output: &mut Tensor) -> Result<()> {
        output.data_mut().fill(0.0);
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let gradient = self.gradient.take().expect("a tape is played once");
        backward.accumulate(0, gradient)
    }

    fn needs(&self) -> ops::Needs {
        ops::Needs::nothing()
    }

    fn forward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }

    fn backward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }
}

/// A fresh tape with `op` run on it, and its output.
fn record(device: &Device, leaves: &[Leaf], op: &impl Fn(&Tape, &[Var]) -> Result<Var>) -> (Tape, Var) {
    let tape = Tape::new(device, Mode::Train);
    let leaf = |leaf: &Leaf| match leaf.constant {
        true => tape.constant(leaf.tensor.clone()),
        false => tape.input(leaf.tensor.clone()),
    };
    let output = op(&tape, &leaves.iter().map(leaf).collect::<Vec<_>>()).expect("shapes that fit");
    (tape, output)
}

fn throughput(cost: Cost) -> Throughput {
    match cost {
        Cost { flops: 0, bytes } => Throughput::Bytes(bytes),
        Cost { flops, bytes } => Throughput::ElementsAndBytes { elements: flops, bytes },
    }
}

/// Times `op` forward and backward.
fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    size: &str,
    device: &Device,
    leaves: &[Leaf],
    op: impl Fn(&Tape, &[Var]) -> Result<Var>,
) {
    let work = record(device, leaves, &op).0.work();
    group.throughput(throughput(work.forward));
    group.bench_function(format!("forward/{size}"), |bencher| {
        bencher.iter(|| black_box(record(device, leaves, &op)));
    });
    let before = || {
        let (tape, output) = record(device, leaves, &op);
        let gradient = noise(device, output.shape()).tensor;
        let loss = tape.apply(Seed { gradient: RefCell::new(Some(gradient)) }, &[&output]).expect("memory");
        (tape, loss)
    };
    group.throughput(throughput(work.backward));
    group.bench_function(format!("backward/{size}"), |bencher| {
        let mut parameters = Parameters::new(device);
        let backward = |(tape, loss): (Tape, Var)| {
            tape.backward(loss, &mut parameters).expect("memory");
            tape
        };
        bencher.iter_batched(before, backward, BatchSize::PerIteration);
    });
}

/// Initial parameters of the default Padé unit.
fn pade(device: &Device) -> [Leaf; 2] {
    let initial = Activation::PADE.initial_parameters().expect("offered orders");
    [0, 1].map(|i| given(device, &[initial[i].len()], &initial[i]))
}

fn decoder(criterion: &mut Criterion) {
    let device = &device();
    let x = || noise(device, &[POINTS, 512]);

    let mut group = criterion.benchmark_group("linear");
    let leaves = [x(), noise(device, &[512, 512]), noise(device, &[512])];
    both(&mut group, "16384x512x512", device, &leaves, |tape, v| ops::linear(tape, &v[0], &v[1], None, Some(&v[2])));
    group.finish();

    let mut group = criterion.benchmark_group("activation");
    let [p, q] = pade(device);
    both(&mut group, "pade 16384x512", device, &[x(), p, q], |tape, v| {
        ops::activation(tape, &v[0], Activation::PADE, &[&v[1], &v[2]])
    });
    group.finish();

    let mut group = criterion.benchmark_group("norm_act");
    let [p, q] = pade(device);
    // Mean and variance of the noise.
    let statistics = given(device, &[2, 1], &[0.0, 1.0 / 3.0]).constant();
    let leaves = [x(), statistics, noise(device, &[1, 512]), noise(device, &[1, 512]), x(), p, q];
    both(&mut group, "conditional + residual + pade 16384x512", device, &leaves, |tape, v| {
        let parts = NormActArgs {
            statistics: Some((&v[1], Grouping::Scalar)),
            through_statistics: true,
            gamma: Some(&v[2]),
            beta: Some(&v[3]),
            residual: Some((&v[4], ResidualPlace::BeforeActivation)),
            activation: Activation::PADE,
            parameters: &[&v[5], &v[6]],
            ..NormActArgs::default()
        };
        ops::norm_act(tape, &v[0], &parts)
    });
    group.finish();

    // Run detached, so there is no backward pass: it is norm_act's.
    let mut group = criterion.benchmark_group("moments");
    let volume = || noise(device, &[1, 48, 48, 48, 32]);
    for (name, leaf, grouping) in [
        ("scalar 16384x512", x(), Grouping::Scalar),
        ("channel 48x48x48x32", volume(), Grouping::Channel),
        ("instance 48x48x48x32", volume(), Grouping::Instance { batch: 1 }),
    ] {
        group.throughput(Throughput::Bytes(4 * leaf.tensor.len() as u64));
        let leaves = [leaf];
        group.bench_function(format!("forward/{name}"), |bencher| {
            bencher.iter(|| black_box(record(device, &leaves, &|tape, v| ops::moments(tape, &v[0], grouping))));
        });
    }
    group.finish();
}

fn convolutions(criterion: &mut Criterion) {
    let device = &device();
    let geometry = |stride| ConvGeometry { stride: [stride; 3], padding: [1; 3] };

    let mut group = criterion.benchmark_group("conv3d");
    for (name, [d, h, w], [inputs, outputs], stride) in [
        ("4 to 16 at 128x128x80", [128, 128, 80], [4, 16], 1),
        ("32 to 32 at 48x48x48", [48; 3], [32, 32], 1),
        ("128 to 128 at 12x12x12", [12; 3], [128, 128], 1),
        ("16 to 32 at 48x48x48 stride 2", [48; 3], [16, 32], 2),
    ] {
        let weight = noise(device, &[outputs, inputs, 3, 3, 3]);
        let leaves = [noise(device, &[1, d, h, w, inputs]), weight, noise(device, &[outputs])];
        both(&mut group, name, device, &leaves, |tape, v| {
            ops::conv3d(tape, &v[0], &v[1], Some(&v[2]), geometry(stride))
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("conv_transpose3d");
    let leaves = [noise(device, &[1, 24, 24, 24, 64]), noise(device, &[64, 16, 3, 3, 3]), noise(device, &[16])];
    both(&mut group, "64 to 16 at 24x24x24 stride 2", device, &leaves, |tape, v| {
        ops::conv_transpose3d(tape, &v[0], &v[1], Some(&v[2]), geometry(2), [1; 3])
    });
    group.finish();
}

fn patches(criterion: &mut Criterion) {
    let device = &device();
    let volume = || noise(device, &[1, 128, 128, 80, 4]);
    let coordinates = || uniform(device, &[POINTS, 3], 0.0, 80.0);

    let mut group = criterion.benchmark_group("patch_sample");
    let local = PatchOptions::default();
    let both_ranges = PatchOptions { mid_range: Some(Pooling::Average) };
    let leaves = [volume(), coordinates().whole().constant()];
    both(&mut group, "16384 whole", device, &leaves, |tape, v| ops::patch_sample(tape, &v[0], &v[1], local));
    both(&mut group, "16384 whole, mid-range", device, &leaves, |tape, v| {
        ops::patch_sample(tape, &v[0], &v[1], both_ranges)
    });
    let leaves = [volume(), coordinates()];
    both(&mut group, "16384 trilinear", device, &leaves, |tape, v| ops::patch_sample(tape, &v[0], &v[1], local));
    group.finish();

    let mut group = criterion.benchmark_group("patch_conv");
    let leaves =
        [volume().constant(), coordinates().whole().constant(), noise(device, &[2, 4, 7, 7, 7]), noise(device, &[2])];
    both(&mut group, "16384 4 to 2 from a volume", device, &leaves, |tape, v| {
        let source = PatchSource::Volume { volume: &v[0], coordinates: &v[1], options: local };
        ops::patch_conv(tape, source, &v[2], Some(&v[3]))
    });
    let leaves = [noise(device, &[POINTS, 2, 343]), noise(device, &[1, 2, 7, 7, 7]), noise(device, &[1])];
    both(&mut group, "16384 2 to 1 from patches", device, &leaves, |tape, v| {
        ops::patch_conv(tape, PatchSource::Patches(&v[0]), &v[1], Some(&v[2]))
    });
    group.finish();
}

fn volumes(criterion: &mut Criterion) {
    let device = &device();

    let mut group = criterion.benchmark_group("avg_pool");
    let leaves = [noise(device, &[1, 256, 256, 160, 4])];
    both(&mut group, "256x256x160x4 by 2", device, &leaves, |tape, v| ops::avg_pool(tape, &v[0], [2; 3], [2; 3]));
    group.finish();

    let mut group = criterion.benchmark_group("adaptive_max_pool");
    let leaves = [noise(device, &[1, 64, 64, 40, 16])];
    both(&mut group, "64x64x40x16 to 8x8x5", device, &leaves, |tape, v| ops::adaptive_max_pool(tape, &v[0], [8, 8, 5]));
    group.finish();

    let mut group = criterion.benchmark_group("resize");
    let leaves = [noise(device, &[1, 32, 32, 20, 16])];
    for (name, corners) in [("free", AlignCorners::Free), ("aligned", AlignCorners::Aligned)] {
        both(&mut group, &format!("32x32x20x16 to 64x64x40, {name}"), device, &leaves, |tape, v| {
            ops::resize(tape, &v[0], [64, 64, 40], corners)
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("concat");
    let leaves = [noise(device, &[1, 48, 48, 48, 16]), noise(device, &[1, 48, 48, 48, 32])];
    both(&mut group, "16 + 32 at 48x48x48", device, &leaves, |tape, v| ops::concat(tape, &[&v[0], &v[1]]));
    group.finish();
}

fn losses(criterion: &mut Criterion) {
    let device = &device();
    let rows = 96 * 96 * 96;
    let labels = |classes: usize| uniform(device, &[rows, 1], 0.0, classes as f32).whole().constant();

    let mut group = criterion.benchmark_group("loss");
    let leaves = [noise(device, &[rows, 1]), labels(2)];
    both(&mut group, "binary 96x96x96", device, &leaves, |tape, v| {
        ops::binary_loss(tape, &v[0], &v[1], BinaryLoss::default())
    });
    both(&mut group, "binary, worst half 96x96x96", device, &leaves, |tape, v| {
        ops::binary_loss(tape, &v[0], &v[1], BinaryLoss { keep: 0.5, ..BinaryLoss::default() })
    });
    let leaves = [noise(device, &[rows, 4]), labels(4)];
    both(&mut group, "cross entropy 96x96x96x4", device, &leaves, |tape, v| {
        ops::cross_entropy(tape, &v[0], &v[1], CrossEntropy::default())
    });
    // Dice is a mean over volumes, so it is told which rows are one.
    let probabilities = uniform(device, &[1, rows, 1], 0.0, 1.0);
    let leaves = [probabilities, uniform(device, &[1, rows, 1], 0.0, 2.0).whole().constant()];
    both(&mut group, "dice 96x96x96", device, &leaves, |tape, v| {
        ops::dice_loss(tape, &v[0], &v[1], ops::SoftDice::default())
    });
    group.finish();
}

/// Short looks: a regression worth a thought is larger than their noise, and all of them end within minutes.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .nresamples(10_000)
        .without_plots()
}

criterion_group! { name = all; config = short(); targets = decoder, convolutions, patches, volumes, losses }
criterion_main!(all);
