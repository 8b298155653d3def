//! A convolution with normalisation by given statistics, Padé unit and the mean of each 2×2×2 window in its epilogue, of which
//! only the pooled result exists: one launch behind that which packs the weights. CUDA only; the page is
//! `kernels/conv3d_pooled.cu`.

use bytemuck::{Pod, Zeroable};

use super::Sizes;
use super::cuda::{ConvPass, Divisor};
use crate::device::{Cuda, Device, LaunchConfig, Target};
use crate::error::Result;
use crate::ops::cuda::gemm::lengths;
use crate::ops::linear::cuda::CHAIN;
use crate::ops::moments::Grouping;
use crate::ops::norm_act::cuda::Cut;
use crate::ops::{Activation, Cost};
use crate::tape::Precision;
use crate::tensor::{DType, Tensor};

const NAME: &str = "conv3d";

/// Side of the windows, and voxels of one.
const SIDE: usize = 2;
const MEMBERS: usize = SIDE * SIDE * SIDE;

/// Tiles by columns: columns, rows, threads; those of `gemm.cuh` and of `mma.cuh`.
const TILES: [(usize, usize, u32); 3] = [(16, 256, 128), (32, 128, 128), (64, 64, 128)];

/// The twin of `Pooling` in the kernels' file.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Pooling {
    windows: u32,
    order: [Divisor; 3],
    sides: [u32; 3],
}

/// What such a convolution is made of.
pub(crate) struct ConvNormActPool<'a> {
    pub sizes: &'a Sizes,
    pub activation: Activation,
    pub precision: Precision,
}

impl ConvNormActPool<'_> {
    /// Whether there is a kernel for a source that is stored as `source`.
    pub(crate) fn exists(&self, device: &Device, source: DType) -> bool {
        let Sizes { in_channels, out_channels, window, .. } = *self.sizes;
        let one_chain = match self.precision {
            Precision::F32 => source == DType::F32 && window.taps() * in_channels <= CHAIN,
            Precision::Bf16 => source == DType::Bf16,
            Precision::Tf32 => false,
        };
        matches!(device.target(), Target::Cuda(_))
            && self.activation == Activation::PADE
            && out_channels <= TILES[2].0
            && one_chain
    }

    /// Sides of the result.
    fn pooled(&self) -> [usize; 3] {
        self.sizes.output.map(|side| side / SIDE)
    }

    fn windows(&self) -> usize {
        self.sizes.batch * self.pooled().iter().product::<usize>()
    }

    /// Floats of scratch.
    pub(crate) fn workspace(&self) -> usize {
        ConvPass::forward(self.sizes).packed()
    }

    /// What it takes.
    pub(crate) fn cost(&self) -> Cost {
        let Sizes { batch, input, in_channels, out_channels, .. } = *self.sizes;
        let made = (MEMBERS * self.windows() * out_channels) as u64;
        let read = batch * input.iter().product::<usize>() * in_channels + self.sizes.weights();
        Cost {
            flops: made * (2 * (self.sizes.window.taps() * in_channels) as u64 + 5 + self.activation.flops()),
            bytes: 4 * (read as u64 + made / MEMBERS as u64),
        }
    }

    /// `y` of `[x, weight]`, with statistics, scale and shift a channel.
    pub(crate) fn run(
        &self,
        cuda: &Cuda,
        [x, weight]: [&Tensor; 2],
        (vectors, epsilon): ([&Tensor; 3], f32),
        parameters: &[&Tensor],
        y: &mut Tensor,
        scratch: &mut Tensor,
    ) -> Result<()> {
        let forward = ConvPass::forward(self.sizes);
        forward.pack(cuda, weight, scratch)?;
        let ([d, h, w], columns) = (self.pooled(), self.sizes.out_channels);
        let pooling = Pooling {
            windows: lengths(NAME, [self.windows()])?[0],
            order: [d * h * w, h * w, w].map(Divisor::new),
            sides: lengths(NAME, self.sizes.output)?,
        };
        let norm = Cut::affine([1, self.windows(), columns], Some(Grouping::Channel), epsilon, [false; 2]).norm;
        let (tile, rows, threads) = TILES[usize::from(columns > 16) + usize::from(columns > 32)];
        let precision = if self.precision == Precision::Bf16 { "_bf16" } else { "" };
        let kernel = cuda.kernel(format!("conv3d_pooled_pade54{precision}_{tile}"));
        let kernel = kernel.value(forward.conv()?).value(pooling).input(x).input(scratch);
        let kernel = vectors.iter().fold(kernel, |kernel, vector| kernel.input(vector)).value(norm);
        let kernel = parameters.iter().fold(kernel, |kernel, parameter| kernel.input(parameter)).output(y);
        let blocks = [(MEMBERS * self.windows()).div_ceil(rows) as u32, columns.div_ceil(tile) as u32, 1];
        kernel.launch(LaunchConfig { blocks, threads: [threads, 1, 1], shared: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizes::ConvWindow;
    use super::super::tests::shape;
    use super::*;
    use crate::device::Backend;
    use crate::memory::Role;
    use crate::ops::conv3d::ConvGeometry;
    use crate::ops::testing::{Array, assert_clean, cuda_device};
    use crate::ops::{NormActArgs, cast, conv3d, norm_act_pool, workspace};
    use crate::tape::{Mode, Tape, Var};

    const EPSILON: f32 = 1e-5;

    fn inputs(sizes: &Sizes, factor: f64) -> Vec<Array> {
        let Sizes { batch, input: [d, h, w], in_channels, out_channels, window, .. } = *sizes;
        let [a, b, c] = window.kernel;
        let bound = 1.0 / ((in_channels * window.taps()) as f64).sqrt();
        let mut statistics = Array::random(&[2, out_channels], 2);
        statistics.data[out_channels..].iter_mut().for_each(|variance| *variance = variance.abs() + 0.5);
        let parameters = Activation::PADE.initial_parameters().unwrap();
        let parameters =
            parameters.iter().map(|p| Array { shape: vec![p.len()], data: p.iter().map(|&p| f64::from(p)).collect() });
        [
            Array::random(&[batch, d, h, w, in_channels], 1),
            Array::random(&[out_channels, in_channels, a, b, c], 3).map(|x| bound * x),
            statistics,
            Array::random(&[out_channels], 4).map(|x| factor * (x + 1.5)),
            Array::random(&[out_channels], 5),
        ]
        .into_iter()
        .chain(parameters)
        .map(|array| array.in_bf16())
        .collect()
    }

    fn run(device: &Device, sizes: &Sizes, factor: f64, precision: Precision, fused: bool) -> Vec<f32> {
        let tape = Tape::new(device, Mode::Eval).with_precision(precision);
        let tensor = |array: &Array| Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap();
        let mut v: Vec<Var> = inputs(sizes, factor).iter().map(|array| tape.constant(tensor(array))).collect();
        v[0] = cast(&tape, &v[0], precision.storage()).unwrap();
        if !fused {
            let ConvWindow { stride, padding, .. } = sizes.window;
            let h = conv3d(&tape, &v[0], &v[1], None, ConvGeometry { stride, padding }).unwrap();
            let parts = NormActArgs {
                statistics: Some((&v[2], Grouping::Channel)),
                epsilon: EPSILON,
                gamma: Some(&v[3]),
                beta: Some(&v[4]),
                activation: Activation::PADE,
                parameters: &[&v[5], &v[6]],
                ..NormActArgs::default()
            };
            let y = norm_act_pool(&tape, &h, &parts).unwrap();
            return cast(&tape, &y, DType::F32).unwrap().tensor().to_vec().unwrap();
        }
        let pooled = ConvNormActPool { sizes, activation: Activation::PADE, precision };
        let t: Vec<Tensor> = v.iter().map(Var::tensor).collect();
        assert!(pooled.exists(device, t[0].dtype()));
        let [d, h, w] = pooled.pooled();
        let shape = [sizes.batch, d, h, w, sizes.out_channels];
        let mut y = Tensor::empty(device, &shape, precision.storage(), Role::Transient).unwrap();
        let mut scratch = workspace(device, pooled.workspace()).unwrap();
        if let Backend::Cuda(cuda) = device.backend() {
            let vectors = ([&t[2], &t[3], &t[4]], EPSILON);
            pooled.run(cuda, [&t[0], &t[1]], vectors, &[&t[5], &t[6]], &mut y, &mut scratch).unwrap();
        }
        cast(&tape, &tape.constant(y), DType::F32).unwrap().tensor().to_vec().unwrap()
    }

    /// Each tile, with several along the rows, odd sides, columns that are no fours, and all of k in one chain.
    fn table() -> [Sizes; 6] {
        let cubic = ConvWindow::cubic(3, 1, 1);
        [
            shape([2, 6, 7, 10], [4, 16], cubic),
            shape([1, 4, 5, 4], [1, 8], cubic),
            shape([1, 5, 8, 6], [16, 32], cubic),
            shape([2, 4, 4, 5], [8, 22], cubic),
            shape([1, 4, 6, 6], [32, 64], cubic),
            shape([1, 2, 2, 3], [8, 51], cubic),
        ]
    }

    #[test]
    fn the_same_bits_as_the_ops_apart() {
        let Some(device) = cuda_device(0) else { return };
        for sizes in table() {
            // With factors of a thousand many arguments leave the range where a Padé unit's powers are safe.
            for factor in [1.0, 3000.0] {
                let [fused, apart] = [true, false].map(|fused| run(&device, &sizes, factor, Precision::F32, fused));
                // Few tiles with long sums are split where the convolution stands alone: 864 terms in another order.
                let split = sizes.window.taps() * sizes.in_channels >= 512;
                let largest = apart.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let allowed = if split { 1e-5 * largest } else { 0.0 };
                for (a, b) in fused.iter().zip(&apart) {
                    assert!((a - b).abs() <= allowed, "{sizes:?}, {factor}: {a} fused, {b} apart, largest {largest}");
                }
            }
        }
        assert_clean();
    }

    /// The FlashAttention rule: at most twice the error of the ops apart, by the root of the mean square.
    #[test]
    fn no_less_exact_than_apart_in_bf16() {
        let Some(device) = cuda_device(0) else { return };
        let cpu = Device::cpu(1, 1 << 28).unwrap();
        for (sizes, factor) in table().into_iter().zip([1.0, 1.0, 1.0, 3000.0, 1.0, 3000.0]) {
            let truth = run(&cpu, &sizes, factor, Precision::F32, false);
            let off = |fused: bool| {
                let ours = run(&device, &sizes, factor, Precision::Bf16, fused);
                let root = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                root(&mut ours.iter().zip(&truth).map(|(a, b)| a - b)) / root(&mut truth.iter().copied())
            };
            let (fused, apart) = (off(true), off(false));
            assert!(fused <= 2.0 * apart + 1e-6, "{sizes:?}: {fused} against {apart}");
            assert!(apart < 0.02, "{sizes:?}: {apart}");
        }
        assert_clean();
    }
}
