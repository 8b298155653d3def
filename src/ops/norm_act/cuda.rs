//! Launches of the kernels of `kernels/norm_act.cuh`.

use bytemuck::{Pod, Zeroable};

use crate::device::cuda::Kernel;
use crate::device::{Cuda, Device, LaunchConfig, THREADS};
use crate::error::Result;
use crate::ops::activation::Activation;
use crate::ops::cuda::tiling::CudaTiling;
use crate::ops::moments::Grouping;
use crate::tape::Backward;
use crate::tensor::{DType, Tensor};

/// Forward and first backward kernel of an activation, and what it is given: a rectifier's slope, or how many coefficients a
/// Padé unit has.
fn kernels(activation: Activation) -> (&'static str, &'static str, f32) {
    let (forward, first) = match activation {
        Activation::Identity => ("norm_act_identity", "norm_act_first_identity"),
        Activation::Relu | Activation::LeakyRelu(_) => ("norm_act_leaky", "norm_act_first_leaky"),
        Activation::PRelu => ("norm_act_prelu", "norm_act_first_prelu"),
        Activation::Selu => ("norm_act_selu", "norm_act_first_selu"),
        Activation::Swish => ("norm_act_swish", "norm_act_first_swish"),
        Activation::Softplus => ("norm_act_softplus", "norm_act_first_softplus"),
        Activation::Tanh => ("norm_act_tanh", "norm_act_first_tanh"),
        Activation::Sigmoid => ("norm_act_sigmoid", "norm_act_first_sigmoid"),
        Activation::PADE => ("norm_act_pade54", "norm_act_first_pade54"),
        Activation::Pade { .. } => ("norm_act_pade", "norm_act_first_pade"),
    };
    let given = match activation {
        Activation::LeakyRelu(slope) => slope,
        Activation::Pade { numerator, denominator } => (32 * (numerator + 1) + denominator) as f32,
        _ => 0.0,
    };
    (forward, first, given)
}

/// How vectors are indexed by item and channel: the twin of `Norm` in the kernels' file.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct NormIndices {
    epsilon: f32,
    groups: u32,
    item_group: u32,
    channel_group: u32,
    item_gamma: u32,
    item_beta: u32,
}

/// The cut and the indices of one op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub items: usize,
    tiling: CudaTiling,
    /// How kernels find the numbers of a channel of an item.
    pub norm: NormIndices,
    one_group: bool,
    channels: usize,
    affine: bool,
}

impl Cut {
    /// Without statistics, scale and shift: channels do not matter.
    pub(crate) fn flat(elements: usize) -> Self {
        let tiling = CudaTiling::new(elements, 1);
        Self { items: 1, tiling, norm: NormIndices::default(), one_group: false, channels: 1, affine: false }
    }

    /// For `items` items of `rows` rows; `per_item` says of scale and shift whether each item has its own.
    pub(crate) fn affine(
        [items, rows, channels]: [usize; 3],
        grouping: Option<Grouping>,
        epsilon: f32,
        per_item: [bool; 2],
    ) -> Self {
        let own = per_item.map(|own| if own { channels as u32 } else { 0 });
        let (item_group, channel_group) = match grouping {
            Some(Grouping::Channel) => (0, 1),
            Some(Grouping::Instance { .. }) => (channels as u32, 1),
            Some(Grouping::Scalar) | None => (0, 0),
        };
        let groups = grouping.map_or(0, |grouping| grouping.groups(channels)) as u32;
        let norm = NormIndices { epsilon, groups, item_group, channel_group, item_gamma: own[0], item_beta: own[1] };
        let one_group = grouping == Some(Grouping::Scalar);
        Self { items, tiling: CudaTiling::new(rows, channels), norm, one_group, channels, affine: true }
    }

    /// The same where the first backward pass is a product's, in tiles of so many rows and channels.
    pub(crate) fn tiled(&self, rows: usize, tile: [usize; 2]) -> Self {
        Self { tiling: CudaTiling::tiles([rows, self.channels], tile), ..*self }
    }

    pub(crate) fn tiling(&self) -> CudaTiling {
        self.tiling
    }

    pub(crate) fn grid(&self) -> LaunchConfig {
        self.tiling.grid(self.items)
    }

    /// Floats of what the backward passes leave: `Σ g` and `Σ g·(x − μ)` of each channel of each item; of each block of
    /// channels, for the one group; of each channel of each piece; and each block's gradients of the coefficients.
    fn lengths(&self, coefficients: usize) -> [usize; 4] {
        let of_blocks = coefficients * self.tiling.blocks(self.items);
        if !self.affine {
            return [0, 0, 0, of_blocks];
        }
        let of_groups = if self.one_group { 2 * self.tiling.chunks().1 } else { 0 };
        let of_pieces = 2 * self.items * self.tiling.pieces() * self.tiling.width();
        [2 * self.items * self.channels, of_groups, of_pieces, of_blocks]
    }

    /// Floats of scratch that the backward passes need.
    pub(crate) fn workspace(&self, coefficients: usize) -> usize {
        self.lengths(coefficients).iter().sum()
    }

    /// Where the four parts of the scratch begin.
    pub(crate) fn starts(&self, coefficients: usize) -> [usize; 4] {
        let [sums, groups, pieces, _] = self.lengths(coefficients);
        [0, sums, sums + groups, sums + groups + pieces]
    }
}

/// What both directions read.
pub(crate) struct Inputs<'a> {
    pub cut: Cut,
    pub x: Option<&'a Tensor>,
    /// Statistics, scale and shift.
    pub vectors: [Option<&'a Tensor>; 3],
    /// A residual that is added before the activation.
    pub before: Option<&'a Tensor>,
    pub activation: Activation,
    pub parameters: &'a [&'a Tensor],
}

impl Inputs<'_> {
    /// The kernel `name` for tensors stored as `dtype`, with the parameters that forward and first backward pass share.
    fn kernel<'a>(&self, cuda: &'a Cuda, name: &'static str, dtype: DType) -> Kernel<'a> {
        let [statistics, gamma, beta] = self.vectors;
        cuda.kernel_of(name, dtype)
            .optional(self.x)
            .optional(statistics)
            .optional(gamma)
            .optional(beta)
            .value(self.cut.norm)
            .optional(self.before)
            .optional(self.parameters.first().copied())
            .optional(self.parameters.get(1).copied())
            .value(kernels(self.activation).2)
    }

    /// `y`; `after` is added to the activation's value.
    pub(crate) fn forward(&self, cuda: &Cuda, after: Option<&Tensor>, y: &mut Tensor) -> Result<()> {
        let kernel = self.kernel(cuda, kernels(self.activation).0, y.dtype());
        kernel.optional(after).output(y).value(self.cut.tiling).launch(self.cut.grid())
    }

    /// `g = dy·act'(v)` and the sums of pieces; `dy` is in `g` unless given. Without `g` the activation is the identity.
    pub(crate) fn first(
        &self,
        cuda: &Cuda,
        dy: Option<&Tensor>,
        g: Option<&mut Tensor>,
        sums: bool,
        scratch: &mut Tensor,
    ) -> Result<()> {
        if g.is_none() && !sums {
            return Ok(());
        }
        let [.., pieces, blocks] = self.cut.starts(self.activation.coefficients());
        let g = g.as_deref();
        let dy = dy.or(g);
        let dtype = dy.map_or(DType::F32, Tensor::dtype);
        self.kernel(cuda, kernels(self.activation).1, dtype)
            .optional(dy)
            .optional(g)
            .value(if sums { scratch.address() + 4 * pieces as u64 } else { 0 })
            .output_from(scratch, blocks)
            .value(self.cut.tiling)
            .launch(self.cut.grid())
    }
}

/// A gradient that [`sums`] writes or adds to: the twin of `Target` in the kernels' file.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Target {
    address: u64,
    accumulate: u64,
}

/// Positions of the inputs whose gradients come from sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summed {
    pub beta: Option<usize>,
    pub gamma: Option<usize>,
    /// The first of the activation's parameters.
    pub parameters: usize,
}

/// Joins the sums of [`Inputs::first`] and adds the gradients of scale, shift and coefficients to those of the inputs
/// `of`: one launch. `sums`: as [`Inputs::first`] was told.
pub(crate) fn write_gradients(
    inputs: &Inputs<'_>,
    backward: &mut Backward<'_>,
    device: &Device,
    of: Summed,
    sums: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    let lengths = inputs.activation.parameter_lengths();
    let learnt = |i: usize| (i < lengths.len()).then_some(of.parameters + i);
    let positions = [of.beta, of.gamma, learnt(0), learnt(1)];
    let mut opened = [None, None, None, None];
    for (gradient, position) in opened.iter_mut().zip(positions) {
        *gradient = position.map(|i| backward.open_gradient(i)).transpose()?.flatten();
    }
    if let crate::device::Backend::Cuda(cuda) = device.backend() {
        let targets = opened.each_ref().map(|gradient| {
            gradient.as_ref().map_or(Target::default(), |(tensor, accumulate)| Target {
                address: tensor.address(),
                accumulate: u64::from(*accumulate),
            })
        });
        launch_sums(inputs, cuda, targets, sums, scratch)?;
    }
    for (gradient, position) in opened.into_iter().zip(positions) {
        if let (Some((tensor, _)), Some(i)) = (gradient, position) {
            backward.close_gradient(i, tensor);
        }
    }
    Ok(())
}

fn launch_sums(
    inputs: &Inputs<'_>,
    cuda: &Cuda,
    [beta, gamma, numerator, denominator]: [Target; 4],
    sums: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    let Inputs { cut, activation, vectors, .. } = inputs;
    let lengths = activation.parameter_lengths();
    let length = |i: usize| lengths.get(i).copied().unwrap_or(0) as u32;
    let (span, chunks) = if sums { cut.tiling.chunks() } else { (1, 0) };
    let [of_channels, of_groups, of_pieces, of_blocks] = cut.starts(activation.coefficients());
    let groups = if cut.one_group { scratch.address() + 4 * of_groups as u64 } else { 0 };
    cuda.kernel("norm_act_sums")
        .input_from(scratch, of_pieces)
        .input_from(scratch, of_blocks)
        .optional(vectors[0])
        .optional(vectors[1])
        .value(cut.norm)
        .value(cut.items as u32)
        .value(span as u32)
        .value(chunks as u32)
        .value(cut.tiling.blocks(cut.items) as u64)
        .output_from(scratch, of_channels)
        .value(groups)
        .value(beta)
        .value(gamma)
        .value(numerator)
        .value(length(0))
        .value(denominator)
        .value(length(1))
        .value(cut.tiling)
        .launch(LaunchConfig::new(chunks + usize::from(!lengths.is_empty()), THREADS))
}

/// Addresses of `g` and `x` for [`second`]; either may be where `dx` goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Second {
    pub g: u64,
    pub x: u64,
}

/// `dx (+)= s·γ·g [− s·mean(γ·g) − s²·(x − μ)·mean(γ·g·x̂)]`, the bracket if gradients flow `through` the statistics.
pub(crate) fn second(
    inputs: &Inputs<'_>,
    cuda: &Cuda,
    through: bool,
    source: Second,
    accumulate: bool,
    scratch: &Tensor,
    dx: &mut Tensor,
) -> Result<()> {
    let cut = &inputs.cut;
    let [of_channels, of_groups, ..] = cut.starts(inputs.activation.coefficients());
    let groups = if cut.one_group { scratch.address() + 4 * of_groups as u64 } else { 0 };
    cuda.kernel_of("norm_act_second", dx.dtype())
        .value(source.g)
        .value(source.x)
        .optional(inputs.vectors[0])
        .optional(inputs.vectors[1])
        .value(cut.norm)
        .value(cut.items as u32)
        .value(cut.tiling.chunks().1 as u32)
        .input_from(scratch, of_channels)
        .value(groups)
        .value(u32::from(through))
        .output(dx)
        .value(u32::from(accumulate))
        .value(cut.tiling)
        .launch(cut.grid())
}
