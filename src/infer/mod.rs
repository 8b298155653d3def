//! Inference: from a network and a scan to a segmentation on the scan's own grid.
//!
//! [`Segmenter`] is the whole way for one case. An occupancy network becomes a function of space ([`Occupancy`]) that is
//! asked at the points of any [`Grid`], all of them or those that a [`Search`] finds worth it; a U-Net answers for a volume
//! as a whole or in overlapping [`Windows`]. Nothing holds the probabilities of all classes for all voxels unless asked to.

pub mod grid;
pub mod inputs;
pub mod occupancy;
pub mod refine;
pub mod search;
mod seeds;
mod segmenter;
mod shortage;
pub mod windows;

pub use grid::Grid;
pub use occupancy::Occupancy;
pub use refine::Refinement;
pub use search::{Rule, Search};
pub use segmenter::{Options, Segmentation, Segmenter, Verification, segment};
pub use windows::Windows;
