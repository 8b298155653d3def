//! Layers of a few rows on CUDA: launches of `kernels/linear_few.cu`.

use bytemuck::{Pod, Zeroable};

use super::Dims;
use crate::device::{Backend, Cuda, Device, Grid, THREADS, Target};
use crate::error::Result;
use crate::ops::gemm::lengths;
use crate::tape::{Backward, Precision};
use crate::tensor::{DType, Tensor};

/// Most rows: four passes over the weights.
pub(super) const MOST: usize = 32;
/// Rows at a time, and outputs or features side by side of a block: as in the kernels' file.
const ROWS: usize = 8;
const WARP: usize = 32;

/// True if a layer of `x` runs here.
pub(super) fn is_few(device: &Device, (dims, precision): (Dims, Precision), x: DType) -> bool {
    let exact = precision == Precision::F32 && x == DType::F32;
    matches!(device.target(), Target::Cuda(_)) && exact && dims.rows <= MOST
}

/// The twin of `Layer` in the kernels' file.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Layer {
    rows: u32,
    features: u32,
    outputs: u32,
    stride: u32,
    rows_per_bias: u32,
}

impl Layer {
    fn new(dims: Dims) -> Result<Self> {
        let sizes = [dims.rows, dims.features, dims.outputs, dims.stride, dims.rows_per_bias];
        let [rows, features, outputs, stride, rows_per_bias] = lengths(super::NAME, sizes)?;
        Ok(Self { rows, features, outputs, stride, rows_per_bias })
    }
}

/// `y = x·W[:, columns]ᵀ + b`.
pub(super) fn forward(
    cuda: &Cuda,
    dims: Dims,
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    y: &mut Tensor,
) -> Result<()> {
    let kernel = cuda.kernel("linear_few").input(x).input_from(weight, dims.first).optional(bias).output(y);
    kernel.value(Layer::new(dims)?).launch(Grid::new(dims.outputs.div_ceil(THREADS as usize / WARP), THREADS))
}

/// The twin of `Target` in the kernels' file.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Gradient {
    address: u64,
    accumulate: u64,
}

impl Gradient {
    /// Of an open gradient, from its element `first` on.
    fn of(open: Option<&(Tensor, bool)>, first: usize) -> Self {
        open.map_or(Self::default(), |(tensor, accumulate)| Self {
            address: tensor.address() + 4 * first as u64,
            accumulate: u64::from(*accumulate),
        })
    }
}

/// All gradients that are wanted, in one launch.
pub(super) fn backward(backward: &mut Backward<'_>, dims: Dims, bias: bool) -> Result<()> {
    let device = backward.device().clone();
    let (x, weight, dy) = (backward.value(0)?, backward.value(1)?, backward.gradient().clone());
    let mut open = [0, 1, 2].map(|_| None);
    for (i, gradient) in open.iter_mut().enumerate().take(if bias { 3 } else { 2 }) {
        *gradient = backward.open_gradient(i)?;
    }
    if let Backend::Cuda(cuda) = device.backend() {
        // A part of the columns leaves the others' gradient at zero.
        if let Some((dw, false)) = &mut open[1]
            && dims.features != dims.stride
        {
            dw.zero()?;
        }
        let [dx, dw, db] = &open;
        let of_weights = if dw.is_some() || db.is_some() { dims.outputs } else { 0 };
        let of_inputs = dx.as_ref().map_or(0, |_| dims.features.div_ceil(WARP) * dims.rows.div_ceil(ROWS));
        let kernel = cuda.kernel("linear_few_backward").input(&x).input_from(&weight, dims.first).input(&dy);
        let kernel = kernel.value(Gradient::of(dx.as_ref(), 0)).value(Gradient::of(dw.as_ref(), dims.first));
        let kernel = kernel.value(Gradient::of(db.as_ref(), 0)).value(Layer::new(dims)?).value(of_weights as u32);
        kernel.launch(Grid::new(of_weights + of_inputs, THREADS))?;
    }
    for (i, gradient) in open.into_iter().enumerate() {
        if let Some((tensor, _)) = gradient {
            backward.close_gradient(i, tensor);
        }
    }
    Ok(())
}
