//! OSS-Net and O-Net (Reich et al., BMVC 2021; Mescheder et al., CVPR 2019).
//!
//! An encoder turns the half-resolution volume into latents, once a volume. A decoder answers "inside or outside?" at any
//! coordinate from its latent, the coordinate and a local patch of the full-resolution volume. The latent is never copied
//! to the coordinates: its share of the first layer is one vector a volume, and it conditions the normalisations.
//! Module and parameter names are the official ones.

mod folded;
pub mod jets;
mod network;

use crate::error::{Error, Result};
use crate::models::config::{FOURIER_DEVIATION, FOURIER_FREQUENCIES, OssNetConfig, PATCH};
use crate::models::{UnitChoice, recompute::kept_if};
use crate::nn::layers::{self, Act, Builder, Conv, Linear, NormAct};
use crate::nn::{BlockLayers, BufferId, Parameters, chunked_block, conv_norm_act_pool};
use crate::ops::norm_act::ResidualPlace;
use crate::ops::patch_conv::PatchSource;
use crate::ops::{self};
use crate::rng::Rng;
use crate::tape::{Mode, Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

/// What the encoder hands to the decoder.
pub struct Encoding {
    /// `[batch, latents, latent features]`.
    pub latents: Var,
    /// Logits of the low-resolution segmentation `[batch, d, h, w, classes]`, if the configuration has it.
    pub auxiliary: Option<Var>,
}

/// The network. Its weights live in a [`Parameters`].
pub struct OssNet {
    config: OssNetConfig,
    encoder: Encoder,
    decoder: Decoder,
    /// What is recomputed of each block, the encoder's first; nothing of those that are missing.
    choices: Vec<UnitChoice>,
    precision: Precision,
}

impl OssNet {
    /// A network with fresh weights, added to `parameters`.
    ///
    /// # Errors
    /// A configuration that the volume does not admit, or no memory.
    pub fn new(config: OssNetConfig, parameters: &mut Parameters, rng: &mut Rng) -> Result<Self> {
        config.check()?;
        let mut root = Builder::new(parameters, rng);
        let encoder = Encoder::new(&mut root.child("encoder"), &config)?;
        let decoder = Decoder::new(&mut root.child("decoder"), &config)?;
        Ok(Self { config, encoder, decoder, choices: Vec::new(), precision: Precision::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &OssNetConfig {
        &self.config
    }

    /// Encodes half-resolution volumes `[batch, D, H, W, channels]`.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn encode(&self, tape: &Tape, parameters: &Parameters, volume: &Var) -> Result<Encoding> {
        tape.device().in_layer("encoder", || {
            tape.at(self.precision, || {
                let volume = ops::cast(tape, volume, self.precision.storage())?;
                self.encoder.forward(tape, parameters, &self.config, volume, &self.choices)
            })
        })
    }

    /// Logits `[points, classes]` at `coordinates` `[points, 3]` (voxel indices at full resolution; the same number for
    /// each batch item, item by item). `patches` is where the local patches come from; `None` for an O-Net.
    ///
    /// # Errors
    /// Shapes that do not fit, a missing patch source, or no memory.
    pub fn decode(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        encoding: &Encoding,
        coordinates: &Var,
        patches: Option<PatchSource<'_>>,
    ) -> Result<Var> {
        tape.device().in_layer("decoder", || {
            tape.at(self.precision, || {
                let x = self.decoder.point_features(tape, parameters, &self.config, coordinates, patches)?;
                let choices = self.choices.get(self.encoder.blocks.len()..).unwrap_or_default();
                self.decoder.forward(tape, parameters, &self.config, &encoding.latents, x, choices)
            })
        })
    }
}

/// `conv3 → norm → act → pool → conv3 → norm`, plus a pooled skip, then `act`.
struct EncoderBlock {
    first: Conv,
    first_norm: NormAct,
    first_act: Act,
    second: Conv,
    second_norm: NormAct,
    final_act: Act,
    skip: Option<Conv>,
    dropout: f32,
}

impl EncoderBlock {
    fn new(builder: &mut Builder<'_>, config: &OssNetConfig, inputs: usize, outputs: usize) -> Result<Self> {
        let activation = config.activation;
        let main = &mut builder.child("main_mapping");
        let cube = |builder: &mut Builder<'_>, inputs, outputs, side: usize| {
            Conv::new(builder, inputs, outputs, [side; 3], [1; 3], [side / 2; 3], false)
        };
        let first = cube(&mut main.child(0), inputs, outputs, 3)?;
        let first_norm = NormAct::batch(&mut main.child(1), outputs)?;
        let first_act = Act::new(&mut main.child(2), activation)?;
        let second = cube(&mut main.child(5), outputs, outputs, 3)?;
        let second_norm = NormAct::batch(&mut main.child(6), outputs)?;
        let skip = match inputs == outputs {
            true => None,
            false => Some(cube(&mut builder.child("residual_mapping"), inputs, outputs, 1)?),
        };
        let final_act = Act::new(&mut builder.child("final_activation"), activation)?;
        Ok(Self { first, first_norm, first_act, second, second_norm, final_act, skip, dropout: config.dropout })
    }

    /// With `keep` the first convolution's output is kept for the backward pass; otherwise it never exists whole.
    fn forward(&self, tape: &Tape, parameters: &Parameters, x: &Var, keep: bool) -> Result<Var> {
        let main = {
            let (conv, norm, act) = (&self.first, &self.first_norm, &self.first_act);
            let pooled = match keep {
                true => {
                    let convolved = conv.forward_with_stats(tape, parameters, x, norm)?;
                    norm.forward_pool(tape, parameters, convolved, act)?
                }
                false => conv_norm_act_pool(tape, parameters, (conv, norm, act), x)?,
            };
            let pooled = layers::dropout(tape, pooled, self.dropout)?;
            self.second.forward_with_stats(tape, parameters, &pooled, &self.second_norm)?
        };
        // A 1³ convolution and an average pool commute: pooling first does an eighth of the work.
        let skip = ops::avg_pool(tape, x, [2; 3], [2; 3])?;
        let skip = match &self.skip {
            Some(conv) => tape.recomputed(|| conv.forward(tape, parameters, &skip))?,
            None => skip,
        };
        let residual = Some((&skip, ResidualPlace::BeforeActivation));
        self.second_norm.forward(tape, parameters, main, None, residual, Some(&self.final_act))
    }
}

/// `conv5 → norm → act`.
struct Mapping {
    conv: Conv,
    norm: NormAct,
    act: Act,
}

impl Mapping {
    /// `first` is the index of the convolution in the official sequential.
    fn new(
        builder: &mut Builder<'_>,
        config: &OssNetConfig,
        first: usize,
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> Result<Self> {
        Ok(Self {
            conv: Conv::new(&mut builder.child(first), inputs, outputs, [5; 3], [1; 3], [2; 3], bias)?,
            norm: NormAct::batch(&mut builder.child(first + 1), outputs)?,
            act: Act::new(&mut builder.child(first + 2), config.activation)?,
        })
    }

    fn forward(&self, tape: &Tape, parameters: &Parameters, x: &Var) -> Result<Var> {
        let x = self.conv.forward_with_stats(tape, parameters, x, &self.norm)?;
        self.norm.forward(tape, parameters, x, None, None, Some(&self.act))
    }
}

struct Encoder {
    blocks: Vec<EncoderBlock>,
    outputs: Vec<Mapping>,
    last: Mapping,
    auxiliary: Option<Conv>,
}

impl Encoder {
    fn new(builder: &mut Builder<'_>, config: &OssNetConfig) -> Result<Self> {
        let channels = &config.encoder_channels;
        let blocks = channels
            .iter()
            .enumerate()
            .map(|(i, &(inputs, outputs))| {
                EncoderBlock::new(&mut builder.child("blocks").child(i), config, inputs, outputs)
            })
            .collect::<Result<Vec<_>>>()?;
        let last_channels = channels.last().map_or(0, |pair| pair.1);
        let outputs = match config.skip_encoder {
            false => Vec::new(),
            true => channels
                .iter()
                .enumerate()
                .map(|(i, &(_, channels))| {
                    let builder = &mut builder.child("output_mappings");
                    Mapping::new(&mut builder.child(i), config, 1, channels, channels / 2, false)
                })
                .collect::<Result<Vec<_>>>()?,
        };
        let inputs = match config.skip_encoder {
            true => channels.iter().map(|pair| pair.1 / 2).sum(),
            false => last_channels,
        };
        let last = Mapping::new(&mut builder.child("final_mapping"), config, 0, inputs, config.latents(), true)?;
        let auxiliary = match config.has_auxiliary() {
            false => None,
            true => {
                let builder = &mut builder.child("segmentation_mapping");
                let outputs = config.auxiliary_channels();
                Some(Conv::new(&mut builder.child(0), last_channels, outputs, [5; 3], [1; 3], [2; 3], false)?)
            }
        };
        Ok(Self { blocks, outputs, last, auxiliary })
    }

    /// `choices` say what is recomputed of each block.
    fn forward(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        config: &OssNetConfig,
        volume: Var,
        choices: &[UnitChoice],
    ) -> Result<Encoding> {
        let device = tape.device();
        let mut x = volume;
        let mut scales = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            let choice = choices.get(i).copied().unwrap_or_default();
            // Without gradients nothing is gained by keeping the first convolution's output.
            let keep = !choice.in_pieces() && tape.mode() != Mode::Eval;
            let forward = || block.forward(tape, parameters, &x, keep);
            x = device.in_layer(&format!("blocks.{i}"), || kept_if(choice.recomputes(), tape, forward))?;
            if !self.outputs.is_empty() {
                let mapped = device.in_layer(&format!("output_mappings.{i}"), || {
                    let pooled = ops::adaptive_max_pool(tape, &x, config.latent_grid())?;
                    self.outputs[i].forward(tape, parameters, &pooled)
                })?;
                scales.push(mapped);
            }
        }
        let auxiliary =
            match &self.auxiliary {
                None => None,
                Some(conv) => Some(device.in_layer("segmentation_mapping", || {
                    tape.at(Precision::F32, || conv.forward(tape, parameters, &x))
                })?),
            };
        let last = match scales.is_empty() {
            true => x,
            false => ops::concat(tape, &scales.iter().collect::<Vec<_>>())?,
        };
        let latents = device.in_layer("final_mapping", || {
            let latents = self.last.forward(tape, parameters, &last)?;
            // A vector or a few for each volume: nothing is gained by fewer bits.
            ops::transpose_channels(tape, &ops::cast(tape, &latents, DType::F32)?)
        })?;
        Ok(Encoding { latents, auxiliary })
    }
}

/// `linear → conditional norm → act → linear → conditional norm`, plus a residual, then `act`. The residual is the input,
/// in the first block a linear layer of it: that input has another width, and never exists as one tensor.
struct DecoderBlock {
    first: Linear,
    first_norm: NormAct,
    act: Act,
    second: Linear,
    second_norm: NormAct,
    final_act: Act,
    residual: Option<Linear>,
    dropout: f32,
}

impl DecoderBlock {
    fn new(builder: &mut Builder<'_>, config: &OssNetConfig, number: usize) -> Result<Self> {
        let (latent, width) = (config.latent_features(), config.width);
        let inputs = if number == 0 { config.decoder_inputs() } else { width };
        Ok(Self {
            first: Linear::new(&mut builder.child("linear_layer_1"), inputs, width, true)?,
            first_norm: NormAct::conditional(&mut builder.child("cnb_1"), latent, width)?,
            act: Act::new(&mut builder.child("activation"), config.activation)?,
            second: Linear::new(&mut builder.child("linear_layer_2"), width, width, true)?,
            second_norm: NormAct::conditional(&mut builder.child("cnb_2"), latent, width)?,
            final_act: Act::new(&mut builder.child("final_activation"), config.activation)?,
            residual: match number {
                0 => Some(Linear::new(&mut builder.child("residual_mapping"), inputs, width, true)?),
                _ => None,
            },
            dropout: config.dropout,
        })
    }

    /// `shared` `[batch, features]` is the part of the input that is equal for all points of a volume (first block only).
    /// With `chunks` (in training only) the points go through it some at a time.
    fn forward(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: &Var,
        shared: Option<&Var>,
        latent: &Var,
        chunks: bool,
    ) -> Result<Var> {
        if chunks {
            let layers = BlockLayers {
                first: &self.first,
                first_norm: &self.first_norm,
                first_act: &self.act,
                dropout: self.dropout,
                second: &self.second,
                second_norm: &self.second_norm,
                second_act: &self.final_act,
                residual: self.residual.as_ref(),
            };
            return chunked_block(tape, parameters, &layers, [x, latent], shared);
        }
        let (y, residual) = self.first.forward_with_stats(tape, parameters, x, shared, self.residual.as_ref())?;
        let (norm, act) = (&self.first_norm, &self.act);
        let y = match self.dropout > 0.0 {
            false => norm.forward_linear(tape, parameters, y, Some(latent), act, &self.second)?,
            true => {
                let y = norm.forward(tape, parameters, y, Some(latent), None, Some(act))?;
                let y = layers::dropout(tape, y, self.dropout)?;
                self.second.forward_with_stats(tape, parameters, &y, None, None)?.0
            }
        };
        let residual = Some((residual.as_ref().unwrap_or(x), ResidualPlace::BeforeActivation));
        self.second_norm.forward(tape, parameters, y, Some(latent), residual, Some(&self.final_act))
    }
}

/// `conv7 → act → conv7 → act` on 7³ patches.
struct PatchMapping {
    first: Conv,
    first_act: Act,
    second: Conv,
    second_act: Act,
    dropout: f32,
}

impl PatchMapping {
    fn new(builder: &mut Builder<'_>, config: &OssNetConfig) -> Result<Self> {
        let inputs = config.patch_channels();
        let hidden = (inputs / 2).max(1);
        let mapping = &mut builder.child("mapping");
        let conv = |builder: &mut Builder<'_>, inputs, outputs| {
            Conv::new(builder, inputs, outputs, [PATCH; 3], [1; 3], [PATCH / 2; 3], true)
        };
        Ok(Self {
            first: conv(&mut mapping.child(0), inputs, hidden)?,
            first_act: Act::new(&mut mapping.child(1), config.activation)?,
            second: conv(&mut mapping.child(3), hidden, 1)?,
            second_act: Act::new(&mut mapping.child(4), config.activation)?,
            dropout: config.dropout,
        })
    }

    /// Features `[points, 343]`. The hidden layer is recomputed in the backward pass: its convolution is cheap.
    fn forward(&self, tape: &Tape, parameters: &Parameters, source: PatchSource<'_>) -> Result<Var> {
        let conv = |conv: &Conv, source| {
            let weight = tape.parameter(parameters, conv.weight);
            let bias = conv.bias.map(|bias| tape.parameter(parameters, bias));
            ops::patch_conv(tape, source, &weight, bias.as_ref())
        };
        let hidden = tape.recomputed(|| {
            let hidden = conv(&self.first, source)?;
            let hidden = self.first_act.forward(tape, parameters, &hidden)?;
            layers::dropout(tape, hidden, self.dropout)
        })?;
        let features = conv(&self.second, PatchSource::Patches(&hidden))?;
        drop(hidden);
        let points = features.shape()[0];
        let features = ops::reshape(tape, &features, &[points, crate::models::config::PATCH_FEATURES])?;
        self.second_act.forward(tape, parameters, &features)
    }
}

struct Decoder {
    frequencies: Option<BufferId>,
    patch_mapping: Option<PatchMapping>,
    blocks: Vec<DecoderBlock>,
    last: Linear,
}

impl Decoder {
    fn new(builder: &mut Builder<'_>, config: &OssNetConfig) -> Result<Self> {
        let frequencies = match config.fourier {
            true => Some(builder.normal_buffer("b", &[1, 3, FOURIER_FREQUENCIES], FOURIER_DEVIATION)?),
            false => None,
        };
        let blocks = (0..config.blocks)
            .map(|i| DecoderBlock::new(&mut builder.child("blocks").child(i), config, i))
            .collect::<Result<Vec<_>>>()?;
        let patch_mapping = match config.patches {
            true => Some(PatchMapping::new(&mut builder.child("patch_mapping"), config)?),
            false => None,
        };
        let last = Linear::new(&mut builder.child("final_mapping").child(0), config.width, config.classes, false)?;
        Ok(Self { frequencies, patch_mapping, blocks, last })
    }

    /// `x` are the points' own features, `choices` what is recomputed of each block.
    fn forward(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        config: &OssNetConfig,
        latents: &Var,
        mut x: Var,
        choices: &[UnitChoice],
    ) -> Result<Var> {
        let device = tape.device();
        let input_latent = ops::select(tape, latents, 0)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let latent = if config.skip_encoder { ops::select(tape, latents, i + 1)? } else { input_latent.clone() };
            let shared = (i == 0).then_some(&input_latent);
            let last = i + 1 == self.blocks.len();
            let choice = choices.get(i).copied().unwrap_or_default();
            let chunks = tape.is_training() && choice.in_pieces();
            // The last block is played backwards first, while everything else is still there: not worth being recomputed.
            let again = choice != UnitChoice::Keep && !last;
            let forward = || block.forward(tape, parameters, &x, shared, &latent, chunks);
            x = device.in_layer(&format!("blocks.{i}"), || if again { tape.recomputed(forward) } else { forward() })?;
            let boundary = match choice {
                // All others are some element-wise passes away from what is kept; the last block's input is needed first.
                UnitChoice::Keep => i + 2 == self.blocks.len(),
                UnitChoice::Recompute | UnitChoice::Pieces => !last,
                UnitChoice::Lean => false,
            };
            if boundary {
                tape.keep(&x);
            }
        }
        let logits = || tape.at(Precision::F32, || self.last.forward(tape, parameters, &x));
        device.in_layer("final_mapping", logits)
    }

    /// `[points, 3 (or Fourier features) + patch features]`, in f32 whatever the precision: in bf16 index 201 of a volume
    /// would be 200.
    fn point_features(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        config: &OssNetConfig,
        coordinates: &Var,
        patches: Option<PatchSource<'_>>,
    ) -> Result<Var> {
        let coordinates = match config.reference {
            true => coordinates.clone(),
            false => normalised(tape, coordinates, config.volume_shape)?,
        };
        let waves = match self.frequencies {
            Some(buffer) => {
                let table = parameters.buffer(buffer).clone().reshaped(&[3, FOURIER_FREQUENCIES])?;
                let frequencies = tape.constant(table);
                Some(ops::fourier_features(tape, &coordinates, &frequencies)?)
            }
            None => None,
        };
        let patches = match (&self.patch_mapping, patches) {
            (None, _) => None,
            (Some(mapping), Some(source)) => {
                Some(tape.device().in_layer("patch_mapping", || mapping.forward(tape, parameters, source))?)
            }
            (Some(_), None) => {
                return Err(Error::Model(format!("configuration {} needs patches or a volume", config.name)));
            }
        };
        let parts: Vec<&Var> = waves.iter().chain([&coordinates]).chain(&patches).collect();
        match parts.len() {
            1 => Ok(coordinates.clone()),
            _ => ops::concat(tape, &parts),
        }
    }
}

/// Voxel indices → `[−1, 1]` in each axis.
fn normalised(tape: &Tape, coordinates: &Var, shape: [usize; 3]) -> Result<Var> {
    let mut scale = [0.0; 9];
    for (axis, side) in shape.into_iter().enumerate() {
        scale[axis * 4] = 2.0 / side.saturating_sub(1).max(1) as f32;
    }
    let role = crate::memory::Role::Transient;
    let scale = tape.constant(Tensor::from_slice(tape.device(), &[3, 3], role, &scale)?);
    let shift = tape.constant(Tensor::from_slice(tape.device(), &[3], role, &[-1.0; 3])?);
    tape.at(Precision::F32, || ops::linear(tape, coordinates, &scale, None, Some(&shift)))
}
