//! What the engine's loops ask of any network: training, inference and planning take every implementation.

use std::fmt;
use std::sync::Arc;

use super::loss::{self, Batch, LossSettings, Targets};
use super::{OssNet, Recompute, Unit};
use crate::error::{Error, Result};
use crate::nn::Parameters;
use crate::ops::SoftDice;
use crate::rng::Rng;
use crate::tape::{Precision, Tape, Var};

/// Where a network learns labels, which decides what its batches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervision {
    /// At points of the volume.
    Points {
        /// The loss needs the whole label volumes too.
        label_volumes: bool,
        /// Points reach the last index of an axis; the official code's never do.
        last_index: bool,
    },
    /// At every voxel of volumes `[batch, D, H, W, channels]`.
    Voxels,
    /// At every pixel of slices `[batch, 1, H, W, channels]` across an axis of the volume.
    Slices {
        /// That axis, 0 to 2.
        axis: usize,
    },
}

impl Supervision {
    /// True for [`Supervision::Points`].
    pub fn at_points(self) -> bool {
        matches!(self, Self::Points { .. })
    }

    /// The axis that slices are across.
    pub fn slice_axis(self) -> Option<usize> {
        match self {
            Self::Slices { axis } => Some(axis),
            Self::Points { .. } | Self::Voxels => None,
        }
    }
}

/// The description of a network, which builds it on any device; a plan builds many. Layouts of steps are kept under its `Debug`
/// text, which must therefore show every number that decides about a buffer.
pub trait Architecture: fmt::Debug + Send + Sync {
    /// The network with fresh weights, added to `parameters`.
    ///
    /// # Errors
    /// An impossible configuration, or no memory.
    fn build(&self, parameters: &mut Parameters, rng: &mut Rng) -> Result<Box<dyn Network>>;

    /// The name people know the network by.
    fn title(&self) -> String;

    /// The name for files and flags.
    fn slug(&self) -> String {
        self.title().to_lowercase().replace(' ', "-")
    }

    /// Channels of the volume.
    fn image_channels(&self) -> usize;

    /// Outputs: 1 for inside against outside, else one a class.
    fn classes(&self) -> usize;

    /// The configuration as JSON, for checkpoints.
    ///
    /// # Errors
    /// A value that JSON cannot hold.
    fn to_json(&self) -> serde_json::Result<String>;

    /// Where the network learns labels.
    fn supervision(&self) -> Supervision {
        Supervision::Voxels
    }

    /// Voxels that each side of a volume must be a multiple of.
    fn multiples(&self) -> [usize; 3] {
        [1; 3]
    }

    /// The shape that every volume is padded to, if the network knows only one.
    fn volume_shape(&self) -> Option<[usize; 3]> {
        None
    }

    /// The same network for images of other channels, classes and shape; `None` of a network that stays as it is.
    fn for_data(&self, _channels: usize, _classes: usize, _shape: [usize; 3]) -> Option<Arc<dyn Architecture>> {
        None
    }

    /// Levels of recomputation that differ, the fastest first.
    fn levels(&self) -> &'static [Recompute] {
        &Recompute::LEVELS[..1]
    }

    /// Stretches whose recomputation is chosen one by one, in the order of the forward pass; none of a network that knows
    /// levels only.
    fn units(&self) -> Vec<Unit> {
        Vec::new()
    }

    /// Share of the values that the network drops at random in training.
    fn dropout(&self) -> f32 {
        0.0
    }

    /// True if the network behaves as the official code where the two differ.
    fn is_reference(&self) -> bool {
        false
    }

    /// Checks that the network can be built, and admits the volumes it is meant for.
    ///
    /// # Errors
    /// [`Error::Model`] that says what is missing.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// A network. Its weights live in a [`Parameters`], under the names that checkpoints give them.
pub trait Network: Send + Sync {
    /// What it is built from.
    fn architecture(&self) -> &dyn Architecture;

    /// Logits of `volumes` `[batch, D, H, W, channels]`: `[batch, D, H, W, classes]`, or `[points, classes]` at `points`
    /// `[points, 3]` in voxel indices, as many for each volume, if the network learns [at points](Supervision::Points).
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    fn logits(&self, tape: &Tape, parameters: &Parameters, volumes: &Var, points: Option<&Var>) -> Result<Var>;

    /// The loss of a batch, one element: cross entropy and soft Dice of the [`logits`](Network::logits).
    ///
    /// # Errors
    /// Shapes that do not fit, targets of another [`Supervision`], or no memory.
    fn loss(&self, tape: &Tape, parameters: &Parameters, batch: &Batch, settings: LossSettings) -> Result<Var> {
        let (architecture, volumes) = (self.architecture(), tape.constant(batch.volumes.clone()));
        let supervision = architecture.supervision();
        let (points, labels, dice) = match (&batch.targets, supervision) {
            (Targets::Points { coordinates, labels, .. }, Supervision::Points { .. }) => {
                (Some(tape.constant(coordinates.clone())), labels, SoftDice::default())
            }
            (Targets::Dense(labels), Supervision::Voxels | Supervision::Slices { .. }) => {
                let over_batch = supervision.slice_axis().is_some();
                (None, labels, SoftDice { background: false, over_batch })
            }
            _ => {
                let (title, learns) = (architecture.title(), if supervision.at_points() { "points" } else { "voxels" });
                return Err(Error::Model(format!("{title} learns from labels at {learns}; draw batches of them")));
            }
        };
        let logits = self.logits(tape, parameters, &volumes, points.as_ref())?;
        drop((volumes, points));
        let (labels, known) = (tape.constant(labels.clone()), batch.known.filter(|_| !supervision.at_points()));
        loss::classification(tape, &logits, &labels, architecture.classes(), settings, dice, known)
    }

    /// The network as a function of space, if it is an occupancy network: inference then asks it where that is worth it.
    /// Any other answers for all voxels of a volume, or of windows of it.
    fn occupancy(&self) -> Option<&OssNet> {
        None
    }

    /// Sets what the backward pass recomputes; a new network is at level 0. A schedule has been
    /// [checked](Recompute::choices) against the [units](Architecture::units).
    fn set_recompute(&mut self, _recompute: Recompute) {}

    /// Sets the precision of products; a new network computes in f32, and one that does not override this stays there.
    fn set_precision(&mut self, _precision: Precision) {}

    /// The precision of products.
    fn precision(&self) -> Precision {
        Precision::F32
    }
}
