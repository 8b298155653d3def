//! Inference.

pub mod dense;
pub mod segment;

pub use segment::segment;
