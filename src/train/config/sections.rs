//! The sections of a configuration.

use serde::{Deserialize, Serialize};

/// Section `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule.
    pub name: OptimizerName,
    /// Learning rate of the weights.
    pub rate: f32,
    /// Learning rate of the Padé coefficients; 0: the weights'.
    pub activation_rate: f32,
    /// Decay rates of the two moments (Adam, RAdam).
    pub betas: [f32; 2],
    /// Added to the denominator (Adam, RAdam).
    pub epsilon: f32,
    /// μ of SGD.
    pub momentum: f32,
    /// Weight decay (SGD, Adam: added to the gradient; AdamW: decoupled).
    pub weight_decay: f32,
    /// Steps between two corrections of Lookahead; 0: no Lookahead.
    pub lookahead_every: u64,
    /// Share of the way that Lookahead keeps.
    pub lookahead_alpha: f32,
}

/// Rules of optimisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Kingma & Ba 2015.
    Adam,
    /// Loshchilov & Hutter 2019.
    AdamW,
    /// Liu et al. 2020.
    RAdam,
}

/// Section `[schedule]`; which numbers count depends on the name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The course.
    pub name: ScheduleName,
    /// multi_step: epochs (from 0) at whose start the rates are multiplied.
    pub milestones: Vec<u64>,
    /// multi_step: by this.
    pub factor: f32,
    /// cosine: share of the run over which the rates rise from 0.
    pub warm_up: f32,
    /// cosine: factor at the end.
    pub last: f32,
    /// poly: exponent.
    pub power: f32,
}

/// Courses of the rates; see [`Schedule`](crate::nn::optim::Schedule).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleName {
    /// Always the same.
    Constant,
    /// In steps at epochs.
    MultiStep,
    /// Half a cosine after a rise.
    Cosine,
    /// nnU-Net's.
    Poly,
}

/// Section `[preprocessing]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreprocessingConfig {
    /// Lowest and highest value that is kept (Hounsfield units for CT); empty: what the data set's layout says.
    pub clip: Vec<f32>,
    /// Spacing in mm to resample to; empty: each scan's own.
    pub spacing: Vec<f64>,
    /// Shape in voxels to resample to; empty: as the spacing says.
    pub resize: Vec<usize>,
    /// Every class but background becomes one.
    pub merge_classes: bool,
    /// Files of a case are taken to lie on one grid, whatever their headers say.
    pub ignore_geometry: bool,
}

/// Section `[network]`; empty lists and zeros leave the named network's sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizesConfig {
    /// U-Net: channels of each level.
    pub channels: Vec<usize>,
    /// OSS-Net: output channels of each encoder block.
    pub encoder_channels: Vec<usize>,
    /// OSS-Net: features of the decoder's blocks.
    pub width: usize,
    /// OSS-Net: dropout probability.
    pub dropout: f32,
    /// Activation, for example `pade-5/4` or `relu`; empty for the network's own.
    pub activation: String,
}
