//! The occupancy decoder in evaluation, for one volume: features of points in, logits out, nothing in between in memory.
//!
//! With running statistics a conditional normalisation is an affine map whose numbers the volume's latent decides. It is
//! *folded* into the layer before it, once a volume: `γ·((Wx + b) − μ)/√(σ² + ε) + β = W'x + c`. What is left is
//!
//! `h = f₁(W₁x + c₁)`, `y = f₂(W₂h + c₂ + Rx + r)` in the first block,
//! `h = f₁(W₁y + c₁)`, `y ← f₂(W₂h + c₂ + y)` in the others, `logits = L·y`.
//!
//! * `x` `[points, features]`: coordinates and patch of each point. The latent's share of `W₁x` and `Rx` is one vector a
//!   volume and comes as part of the biases.
//! * `W₁`, `R` `[width, features…]` (columns past `features` are the latent's), the other `W` `[width, width]`,
//!   `L` `[classes, width]`, logits `[points, classes]`.
//!
//! Work: `2·points·(2·features·width + (2·blocks − 1)·width² + classes·width)` FLOPs and the activations'; bytes: `x` and
//! logits once, the weights once.
//!
//! # Layout
//!
//! The folded weights are *packed*: transposed, `[inputs][columns]`, each input's row padded to `columns`, and product after
//! product in the order of use, `R` first. On CUDA a tile of points holds `columns` features, so the first block takes `x` in
//! chunks of so many, and each part of a product is padded to whole slices, `depth` inputs at a time. Behind the offsets `c` of
//! `R` and of each layer lie, in bf16, the coordinates' columns of `R` and `W₁`, and then the coefficients of each layer's
//! activation.
//!
//! # bf16
//!
//! CUDA also knows a decoder on tensor cores: weights and activations rounded to bf16, sums in f32; coordinates, offsets and
//! the last layer stay f32. Such weights are packed in the order of the tensor cores' registers.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::activation::Activation;
use crate::ops::{Cost, workspace_for};
use crate::tensor::{DType, Tensor};

const NAME: &str = "occupancy";

/// Activations that a block of CUDA threads holds, and floats of a slice of weights (`TILE` and `SLICE` of the kernels).
const TILE: usize = 1 << 14;
const SLICE: usize = 1 << 12;

/// Coordinates of a point.
const AXES: usize = 3;

/// Fewest and most features that a tile is made for.
const NARROWEST: usize = 64;
const WIDEST: usize = 512;

/// A linear layer and what follows it.
pub struct DecoderLayer {
    /// `[width, inputs…]`.
    pub weight: Tensor,
    /// `[width]` or `[1, width]`.
    pub bias: Tensor,
    /// The normalisation, if there is one.
    pub norm: Option<DecoderNorm>,
    /// The activation's learnt parameters; see [`Activation::initial_parameters`].
    pub coefficients: Vec<Tensor>,
}

/// A normalisation with one given mean and variance.
pub struct DecoderNorm {
    /// Mean and variance `[2, 1]`.
    pub statistics: Tensor,
    /// Added to the variance.
    pub epsilon: f32,
    /// Scale `[1, width]`.
    pub gamma: Tensor,
    /// Shift `[1, width]`.
    pub beta: Tensor,
}

/// A decoder, not yet folded.
pub struct Decoder {
    /// What each point brings.
    pub features: usize,
    /// The first of the three features that are coordinates.
    pub coordinates: usize,
    /// `R` and `r`.
    pub residual: DecoderLayer,
    /// `W₁`, `W₂` of each block.
    pub layers: Vec<DecoderLayer>,
    /// `L`.
    pub last: Tensor,
    /// Behind each layer.
    pub activation: Activation,
}

/// A decoder folded for a volume.
pub struct FoldedDecoder {
    features: usize,
    coordinates: usize,
    layers: usize,
    activation: Activation,
    packing: Packing,
    /// Activations of a tile on CUDA.
    tile: usize,
    packed: Tensor,
    /// Offsets `[1 + layers, columns]`, coordinates' columns `[2, 3, columns]` in bf16, coefficients `[layers, …]`.
    vectors: Tensor,
    last: Tensor,
}

/// How weights are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packing {
    storage: DType,
    width: usize,
    /// Elements from one input to the next.
    columns: usize,
    /// Inputs of a slice.
    depth: usize,
    /// Most features of the points that are multiplied at a time.
    chunk: usize,
}

/// Some inputs of one product, in the order of use.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// 0 for the residual's product, `i + 1` for that of layer `i`.
    product: usize,
    /// First input, and how many.
    first: usize,
    rows: usize,
    /// Where their packed weights begin.
    at: usize,
}

impl Packing {
    fn new(target: Target, storage: DType, width: usize) -> Self {
        match target {
            Target::Cpu { .. } => Self { storage, width, columns: width, depth: 1, chunk: usize::MAX },
            Target::Cuda(_) => {
                let columns = width.next_power_of_two().max(NARROWEST);
                let depth = SLICE * 4 / storage.size() as usize / columns;
                Self { storage, width, columns, depth, chunk: columns }
            }
        }
    }

    /// True if products run in bf16.
    fn is_half(&self) -> bool {
        self.storage == DType::Bf16
    }

    /// All products of a decoder, and the elements of their weights.
    fn parts(&self, features: usize, layers: usize) -> (Vec<Part>, usize) {
        let (mut parts, mut at) = (Vec::new(), 0);
        for product in 0..=layers {
            let inputs = if product < 2 { features } else { self.width };
            for first in (0..inputs).step_by(self.chunk) {
                let rows = self.chunk.min(inputs - first);
                parts.push(Part { product, first, rows, at });
                at += rows.next_multiple_of(self.depth) * self.columns;
            }
        }
        (parts, at)
    }
}

/// Activations that a tile of points has: twice as many where shared memory admits them. In f32 registers do not.
fn tile(target: Target, storage: DType) -> usize {
    match target {
        Target::Cuda(cuda) if storage == DType::Bf16 && cuda.shared_memory as usize >= shared_bytes(2 * TILE) => {
            2 * TILE
        }
        _ => TILE,
    }
}

/// Shared memory of a block: activations in f32, or in bf16 with the residual's, and two slices of the weights.
fn shared_bytes(tile: usize) -> usize {
    4 * (tile + 2 * SLICE)
}

impl Decoder {
    fn width(&self) -> usize {
        self.last.channels()
    }

    /// The layer of a product.
    fn layer(&self, product: usize) -> &DecoderLayer {
        if product == 0 { &self.residual } else { &self.layers[product - 1] }
    }

    fn check(&self, target: Target, storage: DType) -> Result<()> {
        let (width, shape) = (self.width(), |problem: String| Err(Error::shape(NAME, problem)));
        if !FoldedDecoder::is_possible(target, storage, width, self.activation) {
            let activation = self.activation;
            return shape(format!(
                "no {storage:?} kernel for {width} features a layer and {activation:?} on {target:?}"
            ));
        }
        if self.layers.is_empty() || !self.layers.len().is_multiple_of(2) {
            return shape(format!("{} layers: a block has two", self.layers.len()));
        }
        // The coordinates are in one chunk of the features, whatever its size.
        let (first, last) = (self.coordinates, self.coordinates + AXES - 1);
        if last >= self.features || first / NARROWEST != last / NARROWEST {
            return shape(format!("coordinates at {first} of {} features", self.features));
        }
        for product in 0..=self.layers.len() {
            let layer = self.layer(product);
            let inputs = if product < 2 { self.features } else { width };
            let fits = matches!(layer.weight.shape(), [outputs, all] if *outputs == width && *all >= inputs);
            if !fits || layer.bias.len() != width {
                let (weight, bias) = (layer.weight.shape(), layer.bias.shape());
                return shape(format!("weight {weight:?} and bias {bias:?} for {inputs} inputs, {width} outputs"));
            }
            if let Some(norm) = &layer.norm
                && (norm.gamma.len() != width || norm.beta.len() != width || norm.statistics.len() != 2)
            {
                return shape("a normalisation is folded for one volume and has one mean and variance".into());
            }
            let coefficients: Vec<&[usize]> = layer.coefficients.iter().map(Tensor::shape).collect();
            if product > 0 {
                self.activation.check(NAME, &coefficients)?;
            }
        }
        Ok(())
    }
}

impl FoldedDecoder {
    /// True if a decoder of this width can be folded for such a device: in f32 (on CUDA up to 512 features), or in bf16 on
    /// CUDA with the Padé units of OSS-Net.
    pub fn is_possible(target: Target, storage: DType, width: usize, activation: Activation) -> bool {
        match (target, storage) {
            (Target::Cpu { .. }, storage) => storage == DType::F32,
            (Target::Cuda(_), DType::F32) => width <= WIDEST,
            (Target::Cuda(_), DType::Bf16) => width <= WIDEST && activation == Activation::PADE,
            _ => false,
        }
    }

    /// Folds a decoder for products of numbers of type `storage`, f32 or bf16.
    ///
    /// # Errors
    /// Shapes that do not fit, what [`FoldedDecoder::is_possible`] denies, or no memory for the packed weights.
    pub fn new(device: &Device, decoder: &Decoder, storage: DType) -> Result<Self> {
        decoder.check(device.target(), storage)?;
        let packing = Packing::new(device.target(), storage, decoder.width());
        let layers = decoder.layers.len();
        let (parts, elements) = packing.parts(decoder.features, layers);
        device.in_op(NAME, || {
            let empty = |len: usize, dtype| Tensor::empty(device, &[len], dtype, Role::Workspace);
            let rows = 1 + layers + if packing.is_half() { 2 * AXES } else { 0 };
            let vectors = rows * packing.columns + layers * decoder.activation.coefficients();
            let mut folded = Self {
                features: decoder.features,
                coordinates: decoder.coordinates,
                layers,
                activation: decoder.activation,
                packing,
                tile: tile(device.target(), storage),
                packed: empty(elements, storage)?,
                vectors: empty(vectors, DType::F32)?,
                last: decoder.last.clone(),
            };
            for part in parts {
                match device.backend() {
                    Backend::Cpu { .. } => cpu::fold(&mut folded, part, decoder.layer(part.product)),
                    Backend::Cuda(cuda) => cuda::fold(cuda, &mut folded, part, decoder.layer(part.product))?,
                    Backend::Plan { .. } => {}
                }
            }
            Ok(folded)
        })
    }

    /// Where the coefficients of layer `layer` begin among the vectors: behind all others.
    fn coefficients_at(&self, layer: usize) -> usize {
        self.vectors.len() - (self.layers - layer) * self.activation.coefficients()
    }

    /// Where the coordinates' columns of product 0 or 1 begin among the vectors.
    fn exact_at(&self, product: usize) -> usize {
        (1 + self.layers + AXES * product) * self.packing.columns
    }

    /// Logits `[points, classes]` of `x` `[points, features]`.
    ///
    /// # Errors
    /// Features of another number, or no memory.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        if x.channels() != self.features {
            let problem = format!("points {:?} for a decoder of {} features", x.shape(), self.features);
            return Err(Error::shape(NAME, problem));
        }
        let device = x.device();
        device.in_op(NAME, || {
            let mut logits = Tensor::empty(device, &[x.rows(), self.classes()], DType::F32, Role::Transient)?;
            let mut scratch = workspace_for(device, cpu::workspace(self, device.threads()), 0)?;
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    cpu::forward(pool, self, x.data(), scratch.data_mut(), logits.data_mut());
                }
                Backend::Cuda(cuda) => cuda::forward(cuda, self, x, &mut logits)?,
                Backend::Plan { .. } => {}
            }
            device.record_cost(NAME, || self.cost(x.rows()).into());
            Ok(logits)
        })
    }

    fn classes(&self) -> usize {
        self.last.rows()
    }

    /// Work for so many points.
    pub fn cost(&self, points: usize) -> Cost {
        let [points, features, layers, width, classes] =
            [points, self.features, self.layers, self.packing.width, self.classes()].map(|size| size as u64);
        let weights = width * (2 * features + (layers - 1) * width + classes);
        Cost {
            flops: points * (2 * weights + layers * width * (1 + self.activation.flops())),
            bytes: 4 * (points * (features + classes) + weights),
        }
    }
}
