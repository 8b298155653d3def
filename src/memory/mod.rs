//! Memory.

/// An allocation did not fit.
#[derive(Debug, thiserror::Error)]
#[error("out of memory")]
pub struct OutOfMemory {}
