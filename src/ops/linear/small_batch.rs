//! Layers of a few rows on CUDA: launches of `kernels/linear_few.cu`.

use bytemuck::{Pod, Zeroable};

use super::Dims;
use super::cuda::{Addresses, LayerOperands};
use crate::device::{Backend, Cuda, Device, LaunchConfig, THREADS, Target};
use crate::error::Result;
use crate::ops::cuda::gemm::lengths;
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

/// The twin of `Sizes` in the kernels' file.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Sizes {
    rows: u32,
    features: u32,
    outputs: u32,
    stride: u32,
    rows_per_bias: u32,
}

impl Sizes {
    fn new(dims: Dims) -> Result<Self> {
        let sizes = [dims.rows, dims.features, dims.outputs, dims.stride, dims.rows_per_bias];
        let [rows, features, outputs, stride, rows_per_bias] = lengths(super::NAME, sizes)?;
        Ok(Self { rows, features, outputs, stride, rows_per_bias })
    }
}

/// `y = x·W[:, columns]ᵀ + b` of one layer, or of two.
pub(super) fn forward(
    cuda: &Cuda,
    dims: Dims,
    x: &Tensor,
    (first, second): (LayerOperands<'_>, Option<LayerOperands<'_>>),
) -> Result<()> {
    let layers = Addresses::of((&first, second.as_ref()), dims);
    let kernel = cuda.kernel("linear_few").input(x).value(layers[0]).value(layers[1]).value(Sizes::new(dims)?);
    let mut grid = LaunchConfig::new(dims.outputs.div_ceil(THREADS as usize / WARP), THREADS);
    grid.blocks[1] = 1 + u32::from(second.is_some());
    kernel.launch(grid)
}

/// The twin of `Target` in the kernels' file.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Gradient {
    address: u64,
    accumulate: u64,
}

/// A gradient that is written, and whether it is added to; `None`: not wanted.
type Open = Option<(Tensor, bool)>;

impl Gradient {
    /// Of an open gradient, from its element `first` on.
    fn of(open: &Open, first: usize) -> Self {
        open.as_ref().map_or(Self::default(), |(tensor, accumulate)| Self {
            address: tensor.address() + 4 * first as u64,
            accumulate: u64::from(*accumulate),
        })
    }
}

/// The gradient of a layer's result, and which of the op's inputs are its weight and bias.
pub(super) struct Pulled {
    pub dy: Tensor,
    pub weight: usize,
    pub bias: Option<usize>,
}

/// The twin of `Pulled` in the kernels' file.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Addressed {
    weight: u64,
    dy: u64,
    dw: Gradient,
    db: Gradient,
}

/// All gradients that are wanted of input 0 and of one or two layers, in one launch.
pub(super) fn backward(
    backward: &mut Backward<'_>,
    dims: Dims,
    (first, second): (Pulled, Option<Pulled>),
) -> Result<()> {
    let (device, x) = (backward.device().clone(), backward.value(0)?);
    let dx = backward.open_gradient(0)?;
    let mut layers = Vec::new();
    for layer in [first].into_iter().chain(second) {
        let weight = backward.value(layer.weight)?;
        let dw = backward.open_gradient(layer.weight)?;
        let db = layer.bias.map(|bias| backward.open_gradient(bias)).transpose()?.flatten();
        layers.push((layer, weight, dw, db));
    }
    if let Backend::Cuda(cuda) = device.backend() {
        let (mut addresses, mut blocks) = ([Addressed::default(); 2], [0; 2]);
        for (i, (layer, weight, dw, db)) in layers.iter_mut().enumerate() {
            // A part of the columns leaves the others' gradient at zero.
            if let Some((dw, false)) = dw
                && dims.features != dims.stride
            {
                dw.zero()?;
            }
            let weight = weight.address() + 4 * dims.first as u64;
            let (dw, db) = (Gradient::of(dw, dims.first), Gradient::of(db, 0));
            addresses[i] = Addressed { weight, dy: layer.dy.address(), dw, db };
            blocks[i] = if dw.address != 0 || db.address != 0 { dims.outputs } else { 0 };
        }
        let of_inputs = dx.as_ref().map_or(0, |_| dims.features.div_ceil(WARP) * dims.rows.div_ceil(ROWS));
        let kernel = cuda.kernel("linear_few_backward").input(&x).value(addresses[0]).value(addresses[1]);
        let kernel = kernel.value(Gradient::of(&dx, 0)).value(Sizes::new(dims)?);
        let of_weights = blocks[0] + blocks[1];
        kernel
            .value(blocks[0] as u32)
            .value(of_weights as u32)
            .launch(LaunchConfig::new(of_weights + of_inputs, THREADS))?;
    }
    let parameters = layers.into_iter().flat_map(|(layer, _, dw, db)| [(Some(layer.weight), dw), (layer.bias, db)]);
    for (input, gradient) in parameters.chain([(Some(0), dx)]) {
        if let (Some(input), Some((tensor, _))) = (input, gradient) {
            backward.close_gradient(input, tensor);
        }
    }
    Ok(())
}
