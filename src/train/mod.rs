//! Training.

pub mod baseline;
pub mod batch;
pub mod choose;
pub mod costs;
pub mod presets;
pub mod rehearsal;
pub mod settings;
pub mod state;
pub mod step;
pub mod trainer;

#[cfg(test)]
mod on_cuda;
