//! Training.

pub mod average;
pub mod baseline;
pub mod batch;
pub mod choose;
pub mod config;
pub mod costs;
pub mod feed;
pub mod gradients;
pub mod journal;
pub mod passes;
pub mod presets;
pub mod rehearsal;
mod replay;
pub mod run;
pub mod settings;
pub mod state;
pub mod step;
pub mod tensorboard;
pub mod trainer;
pub mod validation;

#[cfg(test)]
mod on_cuda;
#[cfg(test)]
mod on_cuda_bf16;
