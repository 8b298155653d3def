//! Training.

pub mod average;
pub mod baseline;
pub mod batch;
pub mod choose;
pub mod costs;
pub mod gradients;
pub mod presets;
pub mod rehearsal;
pub mod settings;
pub mod state;
pub mod step;
pub mod trainer;
