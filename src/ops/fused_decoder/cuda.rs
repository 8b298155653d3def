//! Launches of `kernels/occupancy.cu`, `kernels/occupancy_any.cu` and `kernels/occupancy_half.cu`.

use bytemuck::{Pod, Zeroable};

use super::{DecoderLayer, FoldedDecoder, NAME, NARROWEST, Part, TILE, shared_bytes};
use crate::device::{Cuda, LaunchConfig, THREADS};
use crate::error::Result;
use crate::ops::activation::Activation;
use crate::ops::cuda::gemm::lengths;
use crate::tensor::Tensor;

/// By columns: 64, 128, 256, 512.
const PADE54: [&str; 4] =
    ["occupancy_pade54_64", "occupancy_pade54_128", "occupancy_pade54_256", "occupancy_pade54_512"];
const ANY: [&str; 4] = ["occupancy_any_64", "occupancy_any_128", "occupancy_any_256", "occupancy_any_512"];

/// The same for tiles of 2¹⁴ and 2¹⁵ activations.
const HALF: [[&str; 2]; 4] = [
    ["occupancy_half_64_16384", "occupancy_half_64_32768"],
    ["occupancy_half_128_16384", "occupancy_half_128_32768"],
    ["occupancy_half_256_16384", "occupancy_half_256_32768"],
    ["occupancy_half_512_16384", "occupancy_half_512_32768"],
];

/// The number by which `Any` of the kernels' file knows an activation.
fn kind(activation: Activation) -> u32 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu | Activation::LeakyRelu(_) => 1,
        Activation::PRelu => 2,
        Activation::Selu => 3,
        Activation::Swish => 4,
        Activation::Softplus => 5,
        Activation::Tanh => 6,
        Activation::Sigmoid => 7,
        Activation::Pade { .. } => 8,
    }
}

/// The twin of `Normalisation` in the kernels' file.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Normalisation {
    statistics: u64,
    gamma: u64,
    beta: u64,
    epsilon: f32,
    padding: u32,
}

/// The twin of `Coefficients` in the kernels' file.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Coefficients {
    from: [u64; 2],
    lengths: [u32; 2],
    to: u64,
}

/// The twin of `Decoder` in the kernels' file.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Decoder {
    packed: u64,
    offsets: u64,
    coefficients: u64,
    last: u64,
    slices: u32,
    layers: u32,
    features: u32,
    width: u32,
    classes: u32,
    numerators: u32,
    denominators: u32,
    coordinates: u32,
    kind: u32,
    slope: f32,
}

/// Address of a tensor's element.
fn element(tensor: &Tensor, i: usize) -> u64 {
    tensor.address() + 4 * i as u64
}

/// Folds one part of a layer.
pub(super) fn fold(cuda: &Cuda, folded: &mut FoldedDecoder, part: Part, layer: &DecoderLayer) -> Result<()> {
    let packing = folded.packing;
    let stride = layer.weight.channels();
    let padded = part.rows.next_multiple_of(packing.depth);
    let sizes = lengths(NAME, [stride, part.rows, padded, packing.width, packing.columns])?;
    let norm = layer.norm.as_ref().map_or(Normalisation::default(), |norm| Normalisation {
        statistics: norm.statistics.address(),
        gamma: norm.gamma.address(),
        beta: norm.beta.address(),
        epsilon: norm.epsilon,
        padding: 0,
    });
    let first = part.first == 0;
    let mut coefficients = Coefficients::default();
    if first && part.product > 0 {
        coefficients.to = element(&folded.vectors, folded.coefficients_at(part.product - 1));
        for (i, values) in layer.coefficients.iter().enumerate() {
            (coefficients.from[i], coefficients.lengths[i]) = (values.address(), values.len() as u32);
        }
    }
    let offsets = if first { element(&folded.vectors, part.product * packing.columns) } else { 0 };
    let half = packing.is_half();
    let name = if half { "occupancy_fold_half" } else { "occupancy_fold" };
    let kernel = cuda.kernel(name).input_from(&layer.weight, part.first);
    let kernel = sizes
        .into_iter()
        .fold(kernel, |kernel, size| kernel.value(size))
        .input(&layer.bias)
        .value(norm)
        .value(coefficients)
        .output_from(&mut folded.packed, part.at)
        .value(offsets);
    if half {
        let exact = if part.product < 2 { element(&folded.vectors, folded.exact_at(part.product)) } else { 0 };
        // Seen from the part's first column.
        let coordinates = (folded.coordinates as u32).wrapping_sub(part.first as u32);
        return kernel.value(exact).value(coordinates).launch(LaunchConfig::cover(padded * packing.columns / 2));
    }
    kernel.launch(LaunchConfig {
        blocks: [padded.div_ceil(32) as u32, (packing.columns / 32) as u32, 1],
        threads: [THREADS, 1, 1],
        shared: 0,
    })
}

/// Logits of the points `x`.
pub(super) fn forward(cuda: &Cuda, folded: &FoldedDecoder, x: &Tensor, logits: &mut Tensor) -> Result<()> {
    let [points] = lengths(NAME, [x.rows()])?;
    let packing = folded.packing;
    let columns = packing.columns;
    let learnt = folded.activation.parameter_lengths();
    let learnt = |i: usize| learnt.get(i).copied().unwrap_or(0) as u32;
    let [layers, features, width, classes] =
        lengths(NAME, [folded.layers, folded.features, folded.packing.width, folded.classes()])?;
    let decoder = Decoder {
        packed: folded.packed.address(),
        offsets: folded.vectors.address(),
        coefficients: element(&folded.vectors, folded.coefficients_at(0)),
        last: folded.last.address(),
        slices: (folded.packed.len() / (packing.depth * columns)) as u32,
        layers,
        features,
        width,
        classes,
        numerators: learnt(0),
        denominators: learnt(1),
        coordinates: folded.coordinates as u32,
        kind: kind(folded.activation),
        slope: if let Activation::LeakyRelu(slope) = folded.activation { slope } else { 0.0 },
    };
    let by_columns = (columns / NARROWEST).ilog2() as usize;
    let (kernel, threads) = match (packing.is_half(), folded.activation) {
        (true, _) => (HALF[by_columns][usize::from(folded.tile > TILE)], folded.tile as u32 / 64),
        (false, Activation::PADE) => (PADE54[by_columns], THREADS),
        (false, _) => (ANY[by_columns], THREADS),
    };
    let blocks = x.rows().div_ceil(folded.tile / columns);
    let grid = LaunchConfig::new(blocks, threads).shared(shared_bytes(folded.tile));
    cuda.kernel(kernel).input(x).value(decoder).output(logits).value(points).launch(grid)
}
