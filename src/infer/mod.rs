//! Inference: from a network and a scan to a segmentation on the scan's own grid.
//!
//! [`Segmenter`] is the whole way for one case, [`Ensemble`] that of several networks. An occupancy network becomes a function of space ([`Occupancy`]) that is
//! asked at the points of any [`QueryGrid`], all of them or those that a [`Search`] finds worth it; a U-Net answers for
//! a volume as a whole or in overlapping [`SlidingWindow`]. Nothing holds the probabilities of all classes for all
//! voxels unless asked to.

mod at_points;
mod ensemble;
pub mod inputs;
pub(crate) mod network_pass;
pub mod occupancy;
mod oom;
mod plan;
pub mod query_grid;
pub mod refine;
pub mod search;
mod seeding;
mod segmenter;
pub mod sliding_window;
mod sound;

pub use ensemble::Ensemble;
pub use occupancy::Occupancy;
pub use plan::InferencePlan;
pub use query_grid::QueryGrid;
pub use refine::Refinement;
pub use search::{Search, SearchRule};
pub use segmenter::{Segmentation, Segmenter, SegmenterOptions, Verification, segment, segment_resampled};
pub use sliding_window::SlidingWindow;
