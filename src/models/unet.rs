//! The residual U-Net, 3D and 2D: identical in structure and parameter names to MONAI's
//! `UNet(spatial_dims, in, out, channels, strides, num_res_units=2)` (Kerfoot et al. 2018).
//!
//! A down unit is two `conv3 → instance norm → PReLU` (the first with stride 2) plus a residual convolution; an up unit is
//! a transposed convolution and one such stage with an identity residual. 2D networks run on volumes whose first axis is
//! a stack of independent slices: kernels, strides and paddings of that axis are 1, 1 and 0, and each slice is a batch item.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::models::config::{MOST_CLASSES, MOST_FEATURES, MOST_LEVELS, joined};
use crate::models::recompute::{Recompute, kept_if};
use crate::models::{Architecture, Network, NetworkConfig, Supervision, Unit, UnitChoice};
use crate::nn::Parameters;
use crate::nn::layers::{Act, Builder, Conv, NormAct};
use crate::ops::activation::Activation;
use crate::ops::norm_act::ResidualPlace;
use crate::ops::{self};
use crate::rng::Rng;
use crate::tape::{Precision, Tape, Var};

/// Everything that determines a U-Net's parameters and what it computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UNetConfig {
    /// 2 or 3.
    pub dimensions: usize,
    /// Channels of the volume.
    pub image_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// Channels of each level.
    pub channels: Vec<usize>,
    /// Stride of each level but the last.
    pub strides: Vec<usize>,
    /// Axis of the volume that a 2D network's slices are perpendicular to (2: axial slices of a canonical volume).
    #[serde(default = "axial")]
    pub slice_axis: usize,
    /// Activation everywhere; MONAI's is PReLU, which checkpoints do not mention.
    #[serde(default = "prelu", skip_serializing_if = "is_prelu")]
    pub activation: Activation,
}

fn prelu() -> Activation {
    Activation::PRelu
}

fn is_prelu(activation: &Activation) -> bool {
    *activation == prelu()
}

fn axial() -> usize {
    2
}

impl UNetConfig {
    /// MONAI's usual five levels: 16, 32, 64, 128, 256 channels, strides 2.
    pub fn standard(dimensions: usize, image_channels: usize, classes: usize) -> Self {
        Self {
            dimensions,
            image_channels,
            classes,
            channels: vec![16, 32, 64, 128, 256],
            strides: vec![2; 4],
            slice_axis: axial(),
            activation: prelu(),
        }
    }

    /// Voxels that every (in 2D: the last two) side must be a multiple of.
    pub fn multiple(&self) -> usize {
        self.strides.iter().fold(1, |product, &stride| product.saturating_mul(stride))
    }

    /// `length` along the network's own axes, `other` along the stack of a 2D one.
    fn sides(&self, length: usize, other: usize) -> [usize; 3] {
        match self.dimensions {
            3 => [length; 3],
            _ => [other, length, length],
        }
    }
}

impl Architecture for UNetConfig {
    fn build(&self, parameters: &mut Parameters, rng: &mut Rng) -> Result<Box<dyn Network>> {
        Ok(Box::new(UNet::new(self.clone(), parameters, rng)?))
    }

    /// `3D residual U-Net`, with the sizes that differ from [`UNetConfig::standard`].
    fn title(&self) -> String {
        let standard = Self::standard(self.dimensions, self.image_channels, self.classes);
        let mut sizes = Vec::new();
        if self.channels != standard.channels {
            sizes.push(format!("channels {}", joined(&self.channels)));
        }
        if self.strides.iter().any(|&stride| stride != 2) {
            sizes.push(format!("strides {}", joined(&self.strides)));
        }
        if self.activation != standard.activation {
            sizes.push(format!("activation {}", self.activation));
        }
        let sizes = if sizes.is_empty() { String::new() } else { format!(" ({})", sizes.join(", ")) };
        format!("{}D residual U-Net{sizes}", self.dimensions)
    }

    fn slug(&self) -> String {
        format!("unet{}d", self.dimensions)
    }

    fn image_channels(&self) -> usize {
        self.image_channels
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn for_data(&self, channels: usize, classes: usize, _shape: [usize; 3]) -> Option<Arc<dyn Architecture>> {
        Some(Arc::new(Self { image_channels: channels, classes, ..self.clone() }))
    }

    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&NetworkConfig::UNet(self.clone()))
    }

    fn supervision(&self) -> Supervision {
        match self.dimensions {
            2 => Supervision::Slices { axis: self.slice_axis },
            _ => Supervision::Voxels,
        }
    }

    fn multiples(&self) -> [usize; 3] {
        let mut multiples = [self.multiple(); 3];
        if self.dimensions == 2 {
            multiples[self.slice_axis] = 1;
        }
        multiples
    }

    /// There are no points to take in chunks.
    fn levels(&self) -> &'static [Recompute] {
        &Recompute::LEVELS[..3]
    }

    /// Each level's unit on the way down, the deepest, and what follows on the way up.
    fn units(&self) -> Vec<Unit> {
        const CHOICES: [UnitChoice; 2] = [UnitChoice::Keep, UnitChoice::Recompute];
        let [keep, again] = CHOICES;
        let above = |depth| String::from("model") + &".1.submodule".repeat(depth);
        let unit = |layer, first| Unit { layer, choices: &CHOICES, levels: [keep, first, again, again] };
        let deepest = self.channels.len().saturating_sub(1);
        let down = (0..deepest).map(|depth| unit(above(depth) + ".0", again)).chain([unit(above(deepest), again)]);
        down.chain((0..deepest).rev().map(|depth| unit(above(depth) + ".2", keep))).collect()
    }

    fn check(&self) -> Result<()> {
        let fits = matches!(self.dimensions, 2 | 3)
            && self.channels.len() >= 2
            && self.strides.len() + 1 == self.channels.len()
            && self.strides.iter().all(|stride| matches!(stride, 1 | 2))
            && !self.channels.contains(&0)
            && self.slice_axis < 3
            && self.image_channels > 0
            && self.classes > 0;
        let sizes = self.channels.iter().copied().chain([self.image_channels]);
        if sizes.max().is_some_and(|most| most > MOST_FEATURES)
            || self.classes > MOST_CLASSES
            || self.channels.len() > MOST_LEVELS
        {
            return Err(Error::Model(format!(
                "a U-Net of {} levels for {} channels and {} classes is too large; there may be {MOST_LEVELS} levels, \
                 {MOST_FEATURES} channels and {MOST_CLASSES} classes",
                self.channels.len(),
                self.image_channels,
                self.classes
            )));
        }
        if fits {
            return Ok(());
        }
        Err(Error::Model(format!(
            "U-Net with {} dimensions, channels {:?}, strides {:?} and slices across axis {}: needs 2 or 3 dimensions, two \
             levels or more, one stride (1 or 2) between neighbouring levels, and an axis of 0, 1 or 2",
            self.dimensions, self.channels, self.strides, self.slice_axis
        )))
    }
}

impl Network for UNet {
    fn architecture(&self) -> &dyn Architecture {
        &self.config
    }

    fn logits(&self, tape: &Tape, parameters: &Parameters, volumes: &Var, points: Option<&Var>) -> Result<Var> {
        match points {
            None => self.forward(tape, parameters, volumes),
            Some(_) => Err(Error::Model("a U-Net answers for all voxels, not at points".into())),
        }
    }

    fn set_recompute(&mut self, recompute: Recompute) {
        self.choices = recompute.choices(&self.config.units()).unwrap_or_default();
    }

    /// What follows the last skip connection, of as many channels as there are classes, stays f32.
    fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn precision(&self) -> Precision {
        self.precision
    }
}

/// The network. Its weights live in a [`Parameters`].
pub struct UNet {
    config: UNetConfig,
    root: Level,
    /// What is recomputed of each unit; nothing of those that are missing.
    choices: Vec<UnitChoice>,
    precision: Precision,
}

impl UNet {
    /// A network with fresh weights, added to `parameters`.
    ///
    /// # Errors
    /// An impossible configuration, or no memory.
    pub fn new(config: UNetConfig, parameters: &mut Parameters, rng: &mut Rng) -> Result<Self> {
        config.check()?;
        let mut builder = Builder::new(parameters, rng);
        let root = Level::new(&mut builder.child("model"), &config, 0, config.image_channels, config.classes)?;
        Ok(Self { config, root, choices: Vec::new(), precision: Precision::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Logits `[batch, D, H, W, classes]` of volumes `[batch, D, H, W, channels]` whose sides are multiples of
    /// [`UNetConfig::multiple`]. A 2D network takes slices as batch items with `D = 1`.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn forward(&self, tape: &Tape, parameters: &Parameters, volume: &Var) -> Result<Var> {
        let (shape, multiple) = (volume.shape(), self.config.multiple());
        let own = &shape[4usize.saturating_sub(self.config.dimensions).min(shape.len())..shape.len().saturating_sub(1)];
        if shape.len() != 5 || own.iter().any(|side| side % multiple != 0) {
            return Err(Error::Model(format!(
                "the U-Net needs [batch, D, H, W, channels] with sides that are multiples of {multiple}, not {shape:?}; pad it"
            )));
        }
        tape.device().in_layer("model", || {
            tape.at(self.precision, || {
                let volume = ops::cast(tape, volume, self.precision.storage())?;
                let again = |unit| self.choices.get(unit) == Some(&UnitChoice::Recompute);
                self.root.forward(tape, parameters, &volume, &again, 0)
            })
        })
    }
}

/// `conv → instance norm → activation`; the last one of a network is the convolution alone.
struct Stage {
    conv: Conv,
    act: Option<Act>,
}

impl Stage {
    fn new(builder: &mut Builder<'_>, conv: Conv, act: Option<Activation>) -> Result<Self> {
        let act = match act {
            None => None,
            Some(act) => Some(Act::new(&mut builder.child("adn").child("A"), act)?),
        };
        Ok(Self { conv, act })
    }

    /// The stage's output plus `residual`.
    fn forward(&self, tape: &Tape, parameters: &Parameters, x: &Var, residual: Option<&Var>) -> Result<Var> {
        let Some(act) = &self.act else {
            let y = self.conv.forward(tape, parameters, x)?;
            return match residual {
                Some(residual) => ops::add(tape, &y, residual),
                None => Ok(y),
            };
        };
        let norm = NormAct::instance();
        let y = self.conv.forward_with_stats(tape, parameters, x, &norm)?;
        let residual = residual.map(|residual| (residual, ResidualPlace::AfterActivation));
        norm.forward(tape, parameters, y, None, residual, Some(act))
    }
}

/// Stages in a row plus a residual.
struct ResidualUnit {
    stages: Vec<Stage>,
    residual: Option<Conv>,
}

impl ResidualUnit {
    fn new(
        builder: &mut Builder<'_>,
        config: &UNetConfig,
        [inputs, outputs, stride, stages]: [usize; 4],
        last_bare: bool,
    ) -> Result<Self> {
        let (kernel, padding) = (config.sides(3, 1), config.sides(1, 0));
        let stages = (0..stages)
            .map(|i| {
                let unit = &mut builder.child(format!("conv.unit{i}"));
                let (inputs, stride) = if i == 0 { (inputs, stride) } else { (outputs, 1) };
                let strides = config.sides(stride, 1);
                let conv = Conv::new(&mut unit.child("conv"), inputs, outputs, kernel, strides, padding, true)?;
                let bare = last_bare && i + 1 == stages;
                Stage::new(unit, conv, (!bare).then_some(config.activation))
            })
            .collect::<Result<Vec<_>>>()?;
        let residual = match (stride, inputs == outputs) {
            (1, true) => None,
            (1, false) => {
                let builder = &mut builder.child("residual");
                Some(Conv::new(builder, inputs, outputs, [1; 3], [1; 3], [0; 3], true)?)
            }
            _ => {
                let builder = &mut builder.child("residual");
                Some(Conv::new(builder, inputs, outputs, kernel, config.sides(stride, 1), padding, true)?)
            }
        };
        Ok(Self { stages, residual })
    }

    fn forward(&self, tape: &Tape, parameters: &Parameters, x: &Var) -> Result<Var> {
        let residual = match &self.residual {
            Some(conv) => conv.forward(tape, parameters, x)?,
            None => x.clone(),
        };
        let mut y = x.clone();
        for (i, stage) in self.stages.iter().enumerate() {
            let residual = (i + 1 == self.stages.len()).then_some(&residual);
            y = stage.forward(tape, parameters, &y, residual)?;
        }
        Ok(y)
    }
}

/// One level and all below it.
enum Level {
    /// The deepest: one residual unit.
    Bottom(ResidualUnit),
    /// Down, the level below beside a skip connection, up.
    Between(Box<Between>),
}

/// One level between the input and the deepest.
struct Between {
    /// Nothing is above it: what goes up from here is logits.
    top: bool,
    down: ResidualUnit,
    below: Level,
    up: Stage,
    unit: ResidualUnit,
}

impl Level {
    /// `builder` is at the official sequential of this level (at the unit itself for the deepest).
    fn new(
        builder: &mut Builder<'_>,
        config: &UNetConfig,
        depth: usize,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self> {
        let channels = config.channels[depth];
        if depth + 1 == config.channels.len() {
            return Ok(Level::Bottom(ResidualUnit::new(builder, config, [inputs, channels, 1, 2], false)?));
        }
        let stride = config.strides[depth];
        let top = depth == 0;
        let down = ResidualUnit::new(&mut builder.child(0), config, [inputs, channels, stride, 2], false)?;
        let deepest = depth + 2 == config.channels.len();
        let below_outputs = if deepest { config.channels[depth + 1] } else { channels };
        let below = {
            let builder = &mut builder.child(1);
            Level::new(&mut builder.child("submodule"), config, depth + 1, channels, below_outputs)?
        };
        let up = {
            let builder = &mut builder.child(2);
            let builder = &mut builder.child(0);
            let (kernel, strides) = (config.sides(3, 1), config.sides(stride, 1));
            let (padding, extra) = (config.sides(1, 0), config.sides(stride - 1, 0));
            let inputs = channels + below_outputs;
            let conv = Conv::transposed(&mut builder.child("conv"), inputs, outputs, kernel, strides, padding, extra)?;
            Stage::new(builder, conv, Some(config.activation))?
        };
        let unit = ResidualUnit::new(&mut builder.child(2).child(1), config, [outputs, outputs, 1, 1], top)?;
        Ok(Level::Between(Box::new(Between { top, down, below, up, unit })))
    }

    /// Units of this level and all below it.
    fn units(&self) -> usize {
        match self {
            Level::Bottom(_) => 1,
            Level::Between(level) => 2 + level.below.units(),
        }
    }

    /// Units of which `again` is true keep their outputs only; `unit` is the number of the first.
    fn forward(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: &Var,
        again: &dyn Fn(usize) -> bool,
        unit: usize,
    ) -> Result<Var> {
        let device = tape.device();
        match self {
            Level::Bottom(bottom) => kept_if(again(unit), tape, || bottom.forward(tape, parameters, x)),
            Level::Between(level) => {
                let forward = || level.down.forward(tape, parameters, x);
                let skip = device.in_layer("0", || kept_if(again(unit), tape, forward))?;
                let below = || level.below.forward(tape, parameters, &skip, again, unit + 1);
                let deep = device.in_layer("1.submodule", below)?;
                kept_if(again(unit + 1 + level.below.units()), tape, || {
                    let both = ops::concat(tape, &[&skip, &deep])?;
                    drop((skip, deep));
                    let precision = if level.top { Precision::F32 } else { tape.precision() };
                    tape.at(precision, || {
                        let y = device.in_layer("2.0", || level.up.forward(tape, parameters, &both, None))?;
                        drop(both);
                        device.in_layer("2.1", || level.unit.forward(tape, parameters, &y))
                    })
                })
            }
        }
    }
}
