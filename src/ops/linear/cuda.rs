//! Launches of `kernels/linear.cu`, `kernels/linear_mma.cu` and `kernels/linear_measured.cu`.

use bytemuck::{Pod, Zeroable};

use super::{Dims, NAME, small_batch};
use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::ops::cuda::gemm::{
    BiasGradient, ColumnSums, Math, Product, SumTarget, Whole, bias_splits, column_sums, column_sums_workspace,
    lengths, sum_gradient_splits, sum_splits,
};
use crate::tape::Precision;
use crate::tensor::{DType, Tensor};

impl Dims {
    fn forward(self) -> Product {
        Product { rows: self.rows, columns: self.outputs, inner: self.features, count: 1 }
    }

    fn input_gradient(self) -> Product {
        Product { rows: self.rows, columns: self.features, inner: self.outputs, count: 1 }
    }

    fn weight_gradient(self) -> Product {
        Product { rows: self.outputs, columns: self.features, inner: self.rows, count: 1 }
    }

    /// 1 if the rows of the weight's columns begin at 16 bytes.
    fn vector_weight(self) -> u32 {
        u32::from(self.stride.is_multiple_of(4) && self.first.is_multiple_of(4))
    }

    /// True if each element of the product is one chain of one block, so that its kernel can measure it. Few rows have another
    /// kernel, which would make them anew with other roundings.
    pub(crate) fn is_measurable(self) -> bool {
        self.forward().splits() == 1 && self.features <= CHAIN && self.rows > small_batch::MOST
    }

    /// Floats of scratch that [`measured`] needs.
    pub(crate) fn measured_workspace(self) -> usize {
        measured_workspace(self.forward().grid())
    }

    /// Splits of the rows of each row of the bias, if [`weight_gradient`] can make its gradient too, of `dy` and `x` stored so.
    pub(crate) fn bias_splits(self, precision: Precision, [dy, x]: [DType; 2]) -> Option<usize> {
        let math = Math::of_stored(precision, [dy, x].into_iter(), DType::F32);
        bias_splits((math, dy), self.weight_gradient().splits(), [self.rows, self.rows_per_bias])
    }

    /// Volumes with a bias row of their own.
    fn items(self) -> usize {
        self.rows / self.rows_per_bias
    }
}

/// Floats of scratch that [`forward`] needs.
pub(crate) fn forward_workspace(dims: Dims) -> usize {
    dims.forward().parts(dims.rows * dims.outputs)
}

/// `y = x·W[:, columns]ᵀ + b`.
pub(crate) fn forward(
    cuda: &Cuda,
    (dims, precision): (Dims, Precision),
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    y: &mut Tensor,
    scratch: &mut Tensor,
) -> Result<()> {
    let (product, Dims { rows, features, outputs, stride, rows_per_bias, .. }) = (dims.forward(), dims);
    let split = product.splits() > 1;
    let sizes = lengths(NAME, [rows, features, outputs, stride, rows_per_bias])?;
    let math = Math::of(precision, &[x], y);
    let target = if split { &mut *scratch } else { &mut *y };
    let kernel = cuda.kernel(product.kernel("linear_forward", math)).input(x).input_from(weight, dims.first);
    let kernel = kernel.optional(bias.filter(|_| !split)).output(target);
    let kernel = sizes.into_iter().fold(kernel, |kernel, size| kernel.value(size)).value(dims.vector_weight());
    math.stored(kernel, &[x, weight, target]).launch(product.grid())?;
    if !split {
        return Ok(());
    }
    let target = SumTarget { tensor: y, first: 0, pitch: outputs };
    let bias = bias.map(|bias| (bias, rows_per_bias));
    sum_splits(cuda, (scratch, 0), product.splits(), [rows, outputs], target, bias, false)
}

/// Most terms of a sum that a product measures: `CHAIN` of `kernels/gemm.cuh`.
pub(crate) const CHAIN: usize = 1024;

/// Floats of scratch of a product in so many blocks that measures what it writes.
pub(crate) fn measured_workspace(grid: LaunchConfig) -> usize {
    4 * grid.blocks.iter().map(|&blocks| blocks as usize).product::<usize>()
}

/// One of the layers of a launch.
pub(crate) struct LayerOperands<'a> {
    pub weight: &'a Tensor,
    pub bias: Option<&'a Tensor>,
    pub y: &'a mut Tensor,
}

/// The twin of `Layer` in the kernels' files.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Addresses {
    weight: u64,
    bias: u64,
    y: u64,
}

impl Addresses {
    /// Of the first and, if there is one, the second layer.
    pub(super) fn of((first, second): (&LayerOperands<'_>, Option<&LayerOperands<'_>>), dims: Dims) -> [Self; 2] {
        let address = |layer: &LayerOperands<'_>| Self {
            weight: layer.weight.address() + 4 * dims.first as u64,
            bias: layer.bias.map_or(0, Tensor::address),
            y: layer.y.address(),
        };
        [address(first), second.map_or_else(Self::default, address)]
    }
}

/// [`forward`] of one layer with the mean and variance of all of its result, or of that and a second layer.
pub(crate) fn measured(
    cuda: &Cuda,
    (dims, precision): (Dims, Precision),
    x: &Tensor,
    (first, second): (LayerOperands<'_>, Option<LayerOperands<'_>>),
    statistics: &mut Tensor,
    parts: &mut Tensor,
) -> Result<()> {
    let (product, Dims { rows, features, outputs, stride, rows_per_bias, .. }) = (dims.forward(), dims);
    let layers = Addresses::of((&first, second.as_ref()), dims);
    let math = Math::of(precision, &[x], first.y);
    let kernel = cuda.kernel(product.kernel("linear_measured", math)).input(x);
    let kernel = kernel.value(layers[0]).value(layers[1]).output(parts).output(statistics).tickets(1)?;
    let mut grid = product.grid();
    grid.blocks[2] = 1 + u32::from(second.is_some());
    let kernel = lengths(NAME, [rows, features, outputs, stride, rows_per_bias])?
        .into_iter()
        .fold(kernel, |kernel, size| kernel.value(size))
        .value(dims.vector_weight());
    math.stored(kernel, &[x, first.weight, first.y]).launch(grid)
}

/// Floats of scratch that [`input_gradient`] needs.
pub(crate) fn input_gradient_workspace(dims: Dims) -> usize {
    dims.input_gradient().parts(dims.rows * dims.features)
}

/// `dx (+)= dy·W`.
pub(crate) fn input_gradient(
    cuda: &Cuda,
    (dims, precision): (Dims, Precision),
    [dy, weight]: [&Tensor; 2],
    dx: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    let (product, Dims { rows, features, outputs, stride, .. }) = (dims.input_gradient(), dims);
    let split = product.splits() > 1;
    let math = Math::of(precision, &[dy], dx);
    let target = if split { &mut *scratch } else { &mut *dx };
    let kernel = cuda.kernel(product.kernel("linear_input_gradient", math)).input(dy).input_from(weight, dims.first);
    let kernel = kernel.output(target);
    let sizes = lengths(NAME, [rows, features, outputs, stride])?;
    let kernel = sizes.into_iter().fold(kernel, |kernel, size| kernel.value(size)).value(dims.vector_weight());
    let kernel = kernel.value(u32::from(accumulate && !split));
    math.stored(kernel, &[dy, weight, target]).launch(product.grid())?;
    if !split {
        return Ok(());
    }
    let target = SumTarget { tensor: dx, first: 0, pitch: features };
    sum_splits(cuda, (scratch, 0), product.splits(), [rows, features], target, None, accumulate)
}

/// Floats of scratch that [`weight_gradient`] needs.
pub(crate) fn weight_gradient_workspace(dims: Dims, bias: bool) -> usize {
    dims.weight_gradient().parts(dims.outputs * (dims.features + usize::from(bias)))
}

/// `dW[:, columns] (+)= dyᵀ·x`; the other columns become zero, or stay as they are. And the bias's gradient.
pub(crate) fn weight_gradient(
    cuda: &Cuda,
    (dims, precision): (Dims, Precision),
    [x, dy]: [&Tensor; 2],
    (dw, accumulate): (&mut Tensor, bool),
    bias: Option<BiasGradient<'_>>,
    scratch: &mut Tensor,
) -> Result<()> {
    let (product, Dims { rows, features, outputs, stride, first, .. }) = (dims.weight_gradient(), dims);
    if !accumulate && features != stride {
        dw.zero()?;
    }
    let (splits, sizes) = (product.splits(), [outputs, features]);
    let math = Math::of(precision, &[dy, x], dw);
    let kernel = cuda.kernel(product.kernel("linear_weight_gradient", math)).input(dy).input(x);
    let kernel = if splits > 1 { kernel.output(scratch) } else { kernel.output_from(dw, first) };
    let sums = ColumnSums::of(bias.as_ref(), (splits > 1).then_some((scratch, splits * outputs * features)));
    let [rows, features, outputs, pitch] = lengths(NAME, [rows, features, outputs, stride])?;
    let kernel = kernel.value(rows).value(features).value(outputs);
    let kernel = kernel.value(Whole { pitch, accumulate: u32::from(accumulate) }).value(sums);
    math.stored(kernel, &[dy, x]).launch(product.grid())?;
    if splits == 1 {
        return Ok(());
    }
    let target = SumTarget { tensor: dw, first, pitch: stride };
    sum_gradient_splits(cuda, scratch, splits, sizes, (target, accumulate), bias)
}

/// Floats of scratch that [`bias_gradient`] needs.
pub(crate) fn bias_gradient_workspace(dims: Dims) -> usize {
    column_sums_workspace(dims.items(), dims.rows_per_bias, dims.outputs)
}

/// `db (+)= Σ dy` over the rows of each bias row.
pub(crate) fn bias_gradient(
    cuda: &Cuda,
    dims: Dims,
    dy: &Tensor,
    db: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    column_sums(cuda, dy, [dims.items(), dims.rows_per_bias, dims.outputs], db, accumulate, scratch)
}
