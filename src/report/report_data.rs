//! What the page shows beyond the figures of `results.json`: curves, the memory of a step, slices, facts of the run.

use serde::{Deserialize, Serialize};

use super::resolution::Resolution;
use super::results::RoleBytes;
use super::stack::Stack;

/// The larger arrays of one comparison, drawn by [`page`](super::page) and stored nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportData {
    /// What was run, and how to repeat it.
    pub facts: RunFacts,
    /// Training losses, one curve a model.
    pub losses: Vec<LossCurve>,
    /// Memory over one training step, one timeline a model.
    pub timelines: Vec<Timeline>,
    /// Memory against resolution, one chart a setting.
    pub resolution: Vec<Resolution>,
    /// Slices of the validation cases with all models' predictions.
    pub slices: Vec<CaseSlices>,
}

/// What was run, and how to repeat it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Name of the data set, e.g. `heads (embedded sample)`.
    pub data_set: String,
    /// What its scans and labels are, in a sentence.
    pub description: String,
    /// Every case that was read.
    pub cases: Vec<CaseFacts>,
    /// Passes over the training cases.
    pub epochs: u64,
    /// The full command that repeats the run, with its seed.
    pub command: String,
    /// What a reader must know before believing the scores ([`HEADS_CAVEATS`] for the embedded sample).
    pub caveats: Vec<String>,
    /// What the run itself warned of.
    pub warnings: Vec<String>,
}

/// One case of the data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseFacts {
    /// Name of the case.
    pub name: String,
    /// Whether the case is for validation (otherwise it is for training).
    pub validation: bool,
    /// Voxels along the three axes.
    pub shape: [usize; 3],
    /// Millimetres between voxels along the three axes.
    pub spacing: [f64; 3],
}

/// What the scores on the embedded `heads` sample can and cannot say (from its SOURCE.md).
pub const HEADS_CAVEATS: [&str; 4] = [
    "Both validation masks (pycortexS1, pyradbrain2) derive from the mask of a training case: they were made by registering \
     mni2009c to the scan, so they are not independent of the training data. The mask of pycortexS1 is united with surfaces \
     of that person; the mask of pyradbrain2 misses part of the surgical region.",
    "One training case, mni2009c, is an average of 152 people, not one person.",
    "Four cases for training and two for validation support no claim about any population or about BraTS and LiTS; they show \
     that real anatomy goes through the engine.",
    "The volumes were cropped and resampled to small grids, so the bytes and seconds here are those of the sample, not of \
     clinical volumes.",
];

/// Training losses of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LossCurve {
    /// Name of the model, as in the results.
    pub model: String,
    /// Scans that were seen (or the optimiser step, from 1) and the loss; losses that are not finite leave a gap.
    pub points: Vec<(u64, f64)>,
}

/// Memory over one training step of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Name of the model, as in the results.
    pub model: String,
    /// Keys of the roles that the events count, e.g. `optimizer_state`.
    pub roles: Vec<String>,
    /// The state after each allocation or release, in order.
    pub events: Vec<MemoryEvent>,
}

/// The bytes held after one allocation or release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryEvent {
    /// Position of the event within the step.
    pub index: u64,
    /// The op that asked, e.g. `conv3d`.
    pub op: String,
    /// Path of the layer, e.g. `encoder.block1.conv`.
    pub layer: String,
    /// Where in the step the event lies: `forward`, `backward`, `optimizer`, …
    pub phase: String,
    /// Bytes held, one figure for each of the timeline's roles.
    pub bytes: Vec<u64>,
}

impl MemoryEvent {
    /// Bytes held in all.
    pub fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The bytes with the names of their roles.
    pub fn by_role(&self, roles: &[String]) -> RoleBytes {
        roles.iter().cloned().zip(self.bytes.iter().copied()).collect()
    }
}

/// Slices of one validation case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseSlices {
    /// Name of the case, as in the results.
    pub case: String,
    /// The three orthogonal slices, from [`case_slices`](super::case_slices).
    pub slices: [Slice; 3],
    /// The models' predictions on these slices.
    pub predictions: Vec<ModelMasks>,
    /// The whole scan with the label and the predictions, so that slices can be scrolled.
    #[serde(default)]
    pub stack: Option<Stack>,
}

/// A model's masks on the three slices of a case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelMasks {
    /// Name of the model, as in the results.
    pub model: String,
    /// Class of each pixel (0 is background), in the order and layout of the case's slices.
    pub masks: [Vec<u8>; 3],
}

/// One slice, ready to be shown: row 0 is the top of the picture, column 0 its left.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The anatomical plane.
    pub plane: Plane,
    /// Index of the slice along the volume's own axis.
    pub index: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Millimetres a pixel is wide and high.
    pub pixel: [f64; 2],
    /// Grey levels, `[height, width]`.
    pub image: Vec<u8>,
    /// Classes of the label (0 is background), `[height, width]`.
    pub label: Vec<u8>,
}

/// Anatomical planes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Seen from the left: anterior at the left, superior at the top.
    Sagittal,
    /// Seen from the front: the patient's right at the left, superior at the top.
    Coronal,
    /// Seen from the feet: the patient's right at the left, anterior at the top.
    #[default]
    Axial,
}

impl Plane {
    /// The word for it on the page.
    pub fn name(self) -> &'static str {
        match self {
            Plane::Sagittal => "sagittal",
            Plane::Coronal => "coronal",
            Plane::Axial => "axial",
        }
    }

    /// Anatomical directions at the left, right, top and bottom of the picture.
    pub fn marks(self) -> [char; 4] {
        match self {
            Plane::Sagittal => ['A', 'P', 'S', 'I'],
            Plane::Coronal => ['R', 'L', 'S', 'I'],
            Plane::Axial => ['R', 'L', 'A', 'P'],
        }
    }
}
