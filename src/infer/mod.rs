//! Inference.

pub mod dense;
