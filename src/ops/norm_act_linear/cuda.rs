//! Launches of `kernels/norm_act_linear.cu` and `kernels/norm_act_linear_mma.cu`.

use bytemuck::{Pod, Zeroable};

use super::{BETA, COEFFICIENTS, Dims, GAMMA, NAME};
use crate::device::cuda::Kernel;
use crate::device::{Cuda, Device, LaunchConfig};
use crate::error::Result;
use crate::ops::activation::Activation;
use crate::ops::cuda::gemm::{
    BiasGradient, ColumnSums, Math, SumTarget, Whole, bias_splits, lengths, splits, sum_gradient_splits,
};
use crate::ops::linear::cuda::{self as product, measured_workspace};
use crate::ops::moments::Grouping;
use crate::ops::norm_act::cuda::{Cut, Inputs, Second, Summed, second, write_gradients};
use crate::tape::{Backward, Precision};
use crate::tensor::{DType, Tensor};

/// A tile: which kernel has it, rows, columns, threads.
type Tile = (&'static str, usize, usize, u32);

/// Forward, by outputs.
const WIDE: [Tile; 3] = [("64", 64, 64, 128), ("256", 128, 256, 256), ("512", 64, 512, 256)];
/// The weight's gradient, by outputs.
const TALL: [Tile; 3] = [("64", 64, 64, 128), ("256", 256, 128, 256), ("512", 512, 64, 256)];
/// The input's gradient, the larger if there are many of them.
const EPILOGUE: [Tile; 2] = [("64", 64, 64, 128), ("128", 128, 128, 256)];

/// Blocks that fill a large device: each of these tiles has a multiprocessor for itself.
const BLOCKS: usize = 128;

/// The twin of `Sizes` in the kernels' file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Sizes {
    rows: u32,
    features: u32,
    outputs: u32,
    item_bias: u32,
}

impl Dims {
    /// The first of the tiles that has all outputs, else the last.
    fn by_outputs(self, tiles: [Tile; 3]) -> Tile {
        tiles[usize::from(self.outputs > 64) + usize::from(self.outputs > 256)]
    }

    fn wide(self) -> Tile {
        self.by_outputs(WIDE)
    }

    fn tall(self) -> Tile {
        self.by_outputs(TALL)
    }

    fn epilogue(self) -> Tile {
        let (_, rows, columns, _) = EPILOGUE[1];
        let blocks = self.items * self.rows.div_ceil(rows) * self.features.div_ceil(columns);
        EPILOGUE[usize::from(self.features > 64 && blocks >= BLOCKS)]
    }

    /// The grid of tiles of an item's rows and so many columns.
    fn grid(self, (_, rows, columns, threads): Tile, width: usize) -> LaunchConfig {
        let blocks = [self.rows.div_ceil(rows) as u32, width.div_ceil(columns) as u32, self.items as u32];
        LaunchConfig { blocks, threads: [threads, 1, 1], shared: 0 }
    }

    fn splits(self) -> usize {
        let (_, rows, columns, _) = self.tall();
        let tiles = self.outputs.div_ceil(rows) * self.features.div_ceil(columns);
        splits(tiles, self.items * self.rows, self.outputs * self.features, BLOCKS)
    }

    fn sizes(self) -> Result<Sizes> {
        let item_bias = if self.per_item[2] { self.outputs } else { 0 };
        let sizes = [self.rows, self.features, self.outputs, item_bias, self.items * self.rows];
        let [rows, features, outputs, item_bias, _] = lengths(NAME, sizes)?;
        Ok(Sizes { rows, features, outputs, item_bias })
    }
}

/// What all passes read.
pub(super) struct PassInputs<'a> {
    pub dims: Dims,
    pub precision: Precision,
    pub epsilon: f32,
    pub activation: Activation,
    pub x: &'a Tensor,
    /// Statistics, scale and shift.
    pub vectors: [&'a Tensor; 3],
    pub parameters: [&'a Tensor; 2],
    pub weight: &'a Tensor,
}

impl PassInputs<'_> {
    fn is_exact(&self) -> bool {
        self.precision == Precision::F32
    }

    fn cut(&self) -> Cut {
        let Dims { items, rows, features, per_item, .. } = self.dims;
        Cut::affine([items, rows, features], Some(Grouping::Scalar), self.epsilon, [per_item[0], per_item[1]])
    }

    /// The cut of the sums that the input's gradient leaves.
    fn tiled(&self) -> Cut {
        let (_, rows, columns, _) = self.dims.epilogue();
        self.cut().tiled(self.dims.rows, [rows, columns])
    }

    fn inputs<'a>(&'a self, cut: Cut, parameters: &'a [&'a Tensor]) -> Inputs<'a> {
        let (x, vectors) = (Some(self.x), self.vectors.map(Some));
        Inputs { cut, x, vectors, before: None, activation: self.activation, parameters }
    }

    /// Adds the norm's and the activation's parameters.
    fn describe<'k>(&self, kernel: Kernel<'k>) -> Kernel<'k> {
        let kernel = self.vectors.iter().fold(kernel, |kernel, vector| kernel.input(vector)).value(self.cut().norm);
        self.parameters.iter().fold(kernel, |kernel, parameter| kernel.input(parameter))
    }

    /// Floats of scratch of a forward pass that measures its result.
    pub(super) fn measured_workspace(&self) -> usize {
        match self.is_exact() {
            true => measured_workspace(self.dims.grid(self.dims.wide(), self.dims.outputs)),
            false => self.dims.product().measured_workspace(),
        }
    }

    /// `y` and, if they are wanted, its statistics (and scratch for them).
    pub(super) fn forward(
        &self,
        cuda: &Cuda,
        bias: &Tensor,
        y: &mut Tensor,
        measured: Option<[&mut Tensor; 2]>,
    ) -> Result<()> {
        let tile = self.dims.wide();
        let kernel = cuda.kernel(format!("norm_act_linear_pade54_{}", tile.0));
        let kernel = self.describe(kernel.input(self.x)).input(self.weight).input(bias).output(y);
        let kernel = match measured {
            Some([statistics, parts]) => kernel.output(parts).output(statistics),
            None => kernel.value(0u64).value(0u64),
        };
        kernel.tickets(1)?.value(self.dims.sizes()?).launch(self.dims.grid(tile, self.dims.outputs))
    }

    /// The same by way of `a`.
    pub(super) fn forward_of(
        &self,
        cuda: &Cuda,
        a: &mut Tensor,
        bias: &Tensor,
        y: &mut Tensor,
        measured: Option<[&mut Tensor; 2]>,
    ) -> Result<()> {
        self.inputs(self.cut(), &self.parameters).forward(cuda, None, a)?;
        let (dims, weight) = ((self.dims.product(), self.precision), self.weight);
        match measured {
            Some([statistics, parts]) => {
                let layer = product::LayerOperands { weight, bias: Some(bias), y };
                product::measured(cuda, dims, a, (layer, None), statistics, parts)
            }
            // One split: what would be scratch is never touched.
            None => {
                let mut nothing = y.clone();
                product::forward(cuda, dims, [a, weight], Some(bias), y, &mut nothing)
            }
        }
    }

    /// Splits of the rows of each row of the bias, if the weight's gradient can bring the bias's along.
    pub(super) fn bias_splits(&self, dy: DType) -> Option<usize> {
        let product = self.dims.product();
        match self.is_exact() {
            true => bias_splits((Math::Exact, dy), self.dims.splits(), [product.rows, product.rows_per_bias]),
            false => product.bias_splits(self.precision, [dy, self.x.dtype()]),
        }
    }

    /// Floats of scratch of the gradient of the weight, and of the `bias`.
    pub(super) fn weight_gradient_workspace(&self, bias: bool) -> usize {
        match self.is_exact() {
            true if self.dims.splits() == 1 => 0,
            true => self.dims.splits() * self.dims.outputs * (self.dims.features + usize::from(bias)),
            false => product::weight_gradient_workspace(self.dims.product(), bias),
        }
    }

    /// `dW (+)= dyᵀ·a`, and the bias's gradient.
    pub(super) fn weight_gradient(
        &self,
        cuda: &Cuda,
        dy: &Tensor,
        (dw, accumulate): (&mut Tensor, bool),
        bias: Option<BiasGradient<'_>>,
        scratch: &mut Tensor,
    ) -> Result<()> {
        let Dims { items, features, outputs, .. } = self.dims;
        let (name, rows, columns, threads) = self.dims.tall();
        let splits = self.dims.splits();
        let blocks = [outputs.div_ceil(rows), features.div_ceil(columns), splits].map(|blocks| blocks as u32);
        let kernel = cuda.kernel(format!("norm_act_linear_weight_gradient_pade54_{name}")).input(dy).input(self.x);
        let kernel =
            self.describe(kernel).output(if splits > 1 { &mut *scratch } else { &mut *dw }).value(items as u32);
        let sums = ColumnSums::of(bias.as_ref(), (splits > 1).then_some((&*scratch, splits * outputs * features)));
        let kernel = kernel.value(Whole { pitch: features as u32, accumulate: u32::from(accumulate) }).value(sums);
        kernel.value(self.dims.sizes()?).launch(LaunchConfig { blocks, threads: [threads, 1, 1], shared: 0 })?;
        if splits == 1 {
            return Ok(());
        }
        let target = SumTarget { tensor: dw, first: 0, pitch: features };
        sum_gradient_splits(cuda, scratch, splits, [outputs, features], (target, accumulate), bias)
    }

    /// The same by way of `a`, recomputed.
    pub(super) fn weight_gradient_of(
        &self,
        cuda: &Cuda,
        a: &mut Tensor,
        dy: &Tensor,
        dw: (&mut Tensor, bool),
        bias: Option<BiasGradient<'_>>,
        scratch: &mut Tensor,
    ) -> Result<()> {
        self.inputs(self.cut(), &self.parameters).forward(cuda, None, a)?;
        product::weight_gradient(cuda, (self.dims.product(), self.precision), [a, dy], dw, bias, scratch)
    }

    /// Floats of scratch of [`PassInputs::input_gradient`] and what follows it.
    pub(super) fn input_gradient_workspace(&self) -> usize {
        self.tiled().workspace(self.activation.coefficients())
    }

    /// `g = (dy·W)·act'(v)`, and sums.
    pub(super) fn input_gradient(&self, cuda: &Cuda, dy: &Tensor, g: &mut Tensor, scratch: &mut Tensor) -> Result<()> {
        let tile = self.dims.epilogue();
        let [.., pieces, blocks] = self.tiled().starts(self.activation.coefficients());
        let math = Math::of(self.precision, &[dy], g);
        let kernel = cuda.kernel(format!("norm_act_linear_input_gradient_pade54{}_{}", math.suffix(), tile.0));
        let kernel = self.describe(kernel.input(dy).input(self.weight).input(self.x)).output(g);
        let kernel = kernel.output_from(scratch, pieces).output_from(scratch, blocks).value(self.dims.sizes()?);
        math.stored(kernel, &[dy, self.weight, g]).launch(self.dims.grid(tile, self.dims.features))
    }

    /// The gradients of scale, shift and coefficients from the sums.
    pub(super) fn write_gradients(
        &self,
        backward: &mut Backward<'_>,
        device: &Device,
        scratch: &mut Tensor,
    ) -> Result<()> {
        let of = Summed { beta: Some(BETA), gamma: Some(GAMMA), parameters: COEFFICIENTS };
        write_gradients(&self.inputs(self.tiled(), &[]), backward, device, of, true, scratch)
    }

    /// `g` becomes `dx`.
    pub(super) fn through_statistics(
        &self,
        cuda: &Cuda,
        through: bool,
        g: &mut Tensor,
        scratch: &Tensor,
    ) -> Result<()> {
        let source = Second { g: g.address(), x: self.x.address() };
        second(&self.inputs(self.cut(), &[]), cuda, through, source, false, scratch, g)
    }
}
