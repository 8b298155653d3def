//! Training and scoring.

pub mod baseline;
pub mod metrics;
