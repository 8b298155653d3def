//! From files to arrays: reading scans and labels, their geometry, data sets by layout, and what training draws from them.
//!
//! Plain vectors, independent of the tensor engine. A file is a [`Source`]; [`Volume::read`] and [`Labels::read`] turn it
//! into voxels in canonical order with a [`geometry::Geometry`] that knows the way back to the file's grid. A [`Dataset`]
//! finds and pairs the files of a folder, [`embedded`] those embedded in the binary.

pub mod augment;
pub mod border;
pub mod border_file;
pub mod brats;
pub mod channels;
mod copies;
pub mod ct_window;
pub mod dataset;
pub mod decathlon;
#[cfg(feature = "train")]
pub mod embedded;
pub mod folds;
pub mod geometry;
pub mod inspect;
pub mod lits;
pub mod nifti;
pub mod padding;
mod parallel;
pub mod point_sampling;
pub mod prefetch;
pub mod preprocess;
pub mod resample;
#[allow(dead_code)] // build.rs encodes, the program decodes
mod scan_codec;
pub mod slices;
pub mod source;
pub mod validate;
pub mod volume;

pub use augment::Augmentation;
pub use border::BorderPoints;
pub use dataset::{Case, Class, Dataset, Layout, Scan, Scanned, Split};
pub use folds::{Fold, Folds};
pub use geometry::{Affine, Geometry};
pub use padding::Padding;
pub(crate) use parallel::in_parallel;
pub use point_sampling::{Sampling, SamplingRule};
pub use preprocess::{GridTransform, Preprocessing};
pub use resample::{CornerAlignment, Nearest};
#[cfg(feature = "infer")]
pub(crate) use resample::{Tap, taps_between};
pub use slices::PlaneLayout;
pub use source::{Folder, Source};
pub use validate::Warning;
pub use volume::{Axes, ChannelStats, Labels, Volume};
