//! Launches of `kernels/conv3d.cu` and `kernels/conv3d_mma.cu`.

use bytemuck::{Pod, Zeroable};

use super::NAME;
use super::channel_stats::{Arguments, Channels};
use super::sizes::{ConvWindow, Sizes};
use crate::device::cudnn_desc::{ConvDescriptor, Pass};
use crate::device::{Cuda, LaunchConfig, THREADS};
use crate::error::{Error, Result};
use crate::ops::Grouping;
use crate::ops::cuda::columns::{self, Columns};
use crate::ops::cuda::gemm::{
    Math, Product, SumTarget, column_sums, column_sums_workspace, lengths, sum_splits, weight_splits_grid,
};
use crate::ops::cuda::tiling::CudaTiling;
use crate::ops::moments;
use crate::tape::Precision;
use crate::tensor::{DType, Tensor};

/// Sides of a tile of weights that are packed: `PACK` of the kernels.
const PACK: usize = 32;

/// Longest kernel axis and most channels: what the kernels' packed taps hold.
const LONGEST: usize = 63;
const CHANNELS: usize = (1 << 14) - 1;

/// `Conv` of `kernels/conv3d.cuh`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Conv {
    batch: u32,
    source: [u32; 3],
    target: [u32; 3],
    channels: u32,
    columns: u32,
    taps: [u32; 3],
    stride: [u32; 3],
    padding: [u32; 3],
    adjoint: u32,
}

/// `Divisor` of `kernels/conv3d.cuh`: exact for numbers below 2³¹.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Divisor {
    divisor: u32,
    magic: u32,
    shift: u32,
}

impl Divisor {
    pub(super) fn new(divisor: usize) -> Self {
        let divisor = divisor.max(1) as u64;
        let shift = divisor.next_power_of_two().trailing_zeros();
        let magic = (((1 << shift) - divisor) << 32) / divisor + 1;
        Self { divisor: divisor as u32, magic: magic as u32, shift }
    }
}

/// How the channels of a forward pass are measured.
#[derive(Clone, Copy)]
pub(super) struct Measurement {
    grouping: Grouping,
    cut: Channels,
}

impl Measurement {
    /// Of a convolution of an `x` so stored, if its kernel can.
    pub fn of(sizes: &Sizes, precision: Precision, x: DType, grouping: Grouping) -> Option<Self> {
        let product = ConvPass { sizes, adjoint: false }.product();
        let exact = Math::of_stored(precision, [x].into_iter(), precision.storage()) == Math::Exact;
        // In f32 the sums of the widest tile leave no registers for it.
        let fits = !exact || product.tile_sides()[1] <= 64;
        Channels::of(product, grouping).filter(|_| fits).map(|cut| Self { grouping, cut })
    }
}

/// What becomes of a product's sums.
#[derive(Default)]
struct Finish<'a> {
    bias: Option<&'a Tensor>,
    /// Added to what is there.
    accumulate: bool,
    /// Where the result's statistics go.
    measured: Option<(Measurement, &'a mut Tensor)>,
}

/// A correlation: forward or adjoint.
#[derive(Clone, Copy)]
pub(super) struct ConvPass<'a> {
    sizes: &'a Sizes,
    adjoint: bool,
}

impl<'a> ConvPass<'a> {
    pub(super) fn forward(sizes: &'a Sizes) -> Self {
        Self { sizes, adjoint: false }
    }

    /// Voxels and channels of what is written.
    fn target(self) -> [usize; 2] {
        match self.adjoint {
            false => [self.sizes.output_voxels(), self.sizes.out_channels],
            true => [self.sizes.input_voxels(), self.sizes.in_channels],
        }
    }

    /// The largest of its products: one for each remainder of the target's coordinates modulo the stride if adjoint.
    fn product(self) -> Product {
        let Sizes { batch, input, in_channels, out_channels, window, .. } = *self.sizes;
        if !self.adjoint {
            let rows = self.sizes.output_voxels();
            return Product { rows, columns: out_channels, inner: window.taps() * in_channels, count: 1 };
        }
        let along = |of: fn(usize, usize) -> usize, lengths: [usize; 3]| -> usize {
            (0..3).map(|axis| of(lengths[axis], window.stride[axis])).product()
        };
        Product {
            rows: batch * along(usize::div_ceil, input),
            columns: in_channels,
            inner: along(usize::div_ceil, window.kernel) * out_channels,
            count: along(usize::min, input),
        }
    }

    /// Floats of the packed weights, to a whole number of 16 bytes.
    pub(super) fn packed(self) -> usize {
        let (taps, Sizes { in_channels, out_channels, .. }) = (self.sizes.window.taps(), *self.sizes);
        let (channels, columns) = if self.adjoint { (out_channels, in_channels) } else { (in_channels, out_channels) };
        taps * channels * columns.next_multiple_of(4)
    }

    /// The grid of `conv3d_pack`.
    fn packing(self) -> LaunchConfig {
        let (taps, Sizes { in_channels, out_channels, .. }) = (self.sizes.window.taps(), *self.sizes);
        let (run, columns, matrices) =
            if self.adjoint { (taps, in_channels, out_channels) } else { (in_channels * taps, out_channels, 1) };
        let blocks = [run.div_ceil(PACK) as u32, columns.div_ceil(PACK) as u32, matrices as u32];
        LaunchConfig { blocks, threads: [THREADS, 1, 1], shared: 0 }
    }

    fn workspace(self) -> usize {
        let [voxels, channels] = self.target();
        self.packed() + self.product().parts(voxels * channels)
    }

    /// # Errors
    /// [`Error::Shape`] for sizes that the kernels do not take.
    pub(super) fn conv(self) -> Result<Conv> {
        let Sizes { batch, input, output, in_channels, out_channels, window } = *self.sizes;
        lengths(NAME, [self.sizes.input_voxels(), self.sizes.output_voxels(), self.sizes.weights()])?;
        if window.kernel.iter().any(|&taps| taps > LONGEST) || in_channels.max(out_channels) > CHANNELS {
            let problem = format!("kernel {:?}, {in_channels} to {out_channels} channels", window.kernel);
            return Err(Error::shape(
                NAME,
                format!("{problem}: CUDA takes {LONGEST} taps an axis, {CHANNELS} channels"),
            ));
        }
        let product = self.product();
        if product.count * product.splits() > usize::from(u16::MAX) {
            return Err(Error::shape(NAME, format!("stride {:?} is too large for CUDA", window.stride)));
        }
        let (source, target, channels, columns) = match self.adjoint {
            false => (input, output, in_channels, out_channels),
            true => (output, input, out_channels, in_channels),
        };
        Ok(Conv {
            batch: lengths(NAME, [batch])?[0],
            source: lengths(NAME, source)?,
            target: lengths(NAME, target)?,
            channels: channels as u32,
            columns: columns as u32,
            taps: lengths(NAME, window.kernel)?,
            stride: lengths(NAME, window.stride)?,
            padding: lengths(NAME, window.padding)?,
            adjoint: u32::from(self.adjoint),
        })
    }

    /// The weights as the products read them, to the beginning of `packed`.
    pub(super) fn pack(self, cuda: &Cuda, weight: &Tensor, packed: &mut Tensor) -> Result<()> {
        cuda.kernel("conv3d_pack").input(weight).value(self.conv()?).output(packed).launch(self.packing())
    }

    fn run(
        self,
        (cuda, precision): (&Cuda, Precision),
        [source, weight]: [&Tensor; 2],
        target: &mut Tensor,
        Finish { bias, accumulate, measured }: Finish<'_>,
        scratch: &mut Tensor,
    ) -> Result<()> {
        let (conv, product, packed) = (self.conv()?, self.product(), self.packed());
        let ([voxels, channels], splits) = (self.target(), product.splits());
        self.pack(cuda, weight, scratch)?;
        let math = Math::of(precision, &[source], target);
        let kernel = cuda.kernel(product.kernel("conv3d_correlate", math)).value(conv).input(source).input(scratch);
        let (kernel, made) = match splits {
            1 => (kernel.optional(bias).output(target), &*target),
            _ => (kernel.optional(None).output_from(scratch, packed), &*scratch),
        };
        let kernel = kernel.value(splits as u32).value(u32::from(accumulate && splits == 1));
        let kernel = math.stored(kernel, &[source, weight, made]);
        let measured = match measured {
            None => Arguments::default(),
            Some((Measurement { cut, .. }, statistics)) => {
                let parts = scratch.address() + DType::F32.size() * packed as u64;
                cut.arguments([parts, statistics.address(), kernel.ticket_address(cut.tickets())?])
            }
        };
        kernel.value(measured).launch(product.grid())?;
        if splits == 1 {
            return Ok(());
        }
        let target = SumTarget { tensor: target, first: 0, pitch: channels };
        let bias = bias.map(|bias| (bias, voxels));
        sum_splits(cuda, (scratch, packed), splits, [voxels, channels], target, bias, accumulate)
    }
}

/// The pass by cuDNN, if it is there and asked for and takes these sizes; else false, and nothing is written that matters.
pub(super) fn by_cudnn(
    cuda: &Cuda,
    sizes: &Sizes,
    pass: Pass,
    operands: [&Tensor; 2],
    bias: Option<&Tensor>,
    target: &mut Tensor,
    accumulate: bool,
) -> Result<bool> {
    // A bias on top of earlier sums would need a kernel of its own; no op asks for it.
    let f32s = operands.iter().all(|operand| operand.dtype() == DType::F32) && target.dtype() == DType::F32;
    let Some(cudnn) = cuda.cudnn().filter(|_| f32s && (bias.is_none() || !accumulate)) else { return Ok(false) };
    let Sizes { batch, input, output, in_channels, out_channels, window } = *sizes;
    let ConvWindow { kernel, stride, padding } = window;
    let sizes = ConvDescriptor { batch, input, output, in_channels, out_channels, kernel, stride, padding };
    if let Some(bias) = bias {
        // Every row begins as the bias, and the products are added.
        let (from, to) = (Columns { stride: 0, first: 0 }, Columns { stride: target.channels(), first: 0 });
        let lengths = [target.rows(), target.channels()];
        columns::copy(cuda, (bias, from), (target, to), lengths, false)?;
    }
    cudnn.run(&sizes, pass, operands, target, accumulate || bias.is_some())
}

/// Floats of scratch that [`forward`] needs.
pub(crate) fn forward_workspace(sizes: &Sizes) -> usize {
    ConvPass { sizes, adjoint: false }.workspace()
}

/// `y (+)= conv(x, weight) + bias`, of `[x, weight]`.
pub(crate) fn forward(
    cuda: &Cuda,
    (sizes, precision): (&Sizes, Precision),
    operands: [&Tensor; 2],
    bias: Option<&Tensor>,
    y: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    if by_cudnn(cuda, sizes, Pass::Forward, operands, bias, y, accumulate)? {
        return Ok(());
    }
    let finish = Finish { bias, accumulate, measured: None };
    ConvPass { sizes, adjoint: false }.run((cuda, precision), operands, y, finish, scratch)
}

/// How `y` is cut for [`moments`], and the items that have statistics of their own.
fn tiling(sizes: &Sizes, grouping: Grouping) -> (CudaTiling, usize) {
    (moments::cuda::tiling(grouping, sizes.output_voxels(), sizes.out_channels), grouping.items())
}

/// Floats of scratch that [`measured`] needs: for its kernel, or for a pass over what cuDNN made.
pub(super) fn measured_workspace(sizes: &Sizes, Measurement { grouping, cut }: Measurement) -> usize {
    let (tiling, items) = tiling(sizes, grouping);
    (forward_workspace(sizes) + cut.workspace()).max(moments::cuda::workspace(&tiling, items))
}

/// [`forward`] with the statistics of its result.
pub(super) fn measured(
    cuda: &Cuda,
    (sizes, precision): (&Sizes, Precision),
    operands: [&Tensor; 2],
    bias: Option<&Tensor>,
    y: &mut Tensor,
    (measurement, statistics): (Measurement, &mut Tensor),
    scratch: &mut Tensor,
) -> Result<()> {
    if by_cudnn(cuda, sizes, Pass::Forward, operands, bias, y, false)? {
        let (tiling, items) = tiling(sizes, measurement.grouping);
        return moments::cuda::moments(cuda, tiling, items, y, scratch, statistics);
    }
    let finish = Finish { bias, accumulate: false, measured: Some((measurement, statistics)) };
    ConvPass { sizes, adjoint: false }.run((cuda, precision), operands, y, finish, scratch)
}

/// Floats of scratch that [`input_gradient`] needs.
pub(crate) fn input_gradient_workspace(sizes: &Sizes) -> usize {
    ConvPass { sizes, adjoint: true }.workspace()
}

/// `dx (+)= convᵀ(dy, weight)`, of `[dy, weight]`, plus `bias` for the transposed convolution.
pub(crate) fn input_gradient(
    cuda: &Cuda,
    (sizes, precision): (&Sizes, Precision),
    operands: [&Tensor; 2],
    bias: Option<&Tensor>,
    dx: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    if by_cudnn(cuda, sizes, Pass::InputGradient, operands, bias, dx, accumulate)? {
        return Ok(());
    }
    let finish = Finish { bias, accumulate, measured: None };
    ConvPass { sizes, adjoint: true }.run((cuda, precision), operands, dx, finish, scratch)
}

fn weight_product(sizes: &Sizes) -> Product {
    let rows = sizes.window.taps() * sizes.in_channels;
    Product { rows, columns: sizes.out_channels, inner: sizes.output_voxels(), count: 1 }
}

/// Floats of scratch that [`weight_gradient`] needs.
pub(crate) fn weight_gradient_workspace(sizes: &Sizes) -> usize {
    weight_product(sizes).splits() * sizes.weights()
}

/// `dw (+)= Σ_voxel x·dy`, of `[x, dy]`.
pub(crate) fn weight_gradient(
    cuda: &Cuda,
    (sizes, precision): (&Sizes, Precision),
    [x, dy]: [&Tensor; 2],
    dw: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    if by_cudnn(cuda, sizes, Pass::WeightGradient, [x, dy], None, dw, accumulate)? {
        return Ok(());
    }
    let (product, [d, h, w]) = (weight_product(sizes), sizes.output);
    let math = Math::of(precision, &[x, dy], dw);
    let kernel = cuda.kernel(product.kernel("conv3d_weight_gradient", math));
    let kernel = kernel
        .value(ConvPass { sizes, adjoint: false }.conv()?)
        .value([d * h * w, h * w, w].map(Divisor::new))
        .input(x)
        .input(dy)
        .output(scratch);
    math.stored(kernel, &[x, dy]).launch(product.grid())?;
    cuda.kernel("sum_weight_splits")
        .input(scratch)
        .value(product.splits() as u32)
        .value(sizes.window.taps() as u32)
        .value(sizes.in_channels as u32)
        .value(sizes.out_channels as u32)
        .output(dw)
        .value(u32::from(accumulate))
        .launch(weight_splits_grid(sizes.window.taps() * sizes.in_channels, sizes.out_channels))
}

/// Floats of scratch that [`bias_gradient`] needs.
pub(crate) fn bias_gradient_workspace(voxels: usize, channels: usize) -> usize {
    column_sums_workspace(1, voxels, channels)
}

/// `db (+)= Σ_voxel dy`.
pub(crate) fn bias_gradient(
    cuda: &Cuda,
    dy: &Tensor,
    db: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    column_sums(cuda, dy, [1, dy.rows(), dy.channels()], db, accumulate, scratch)
}
