//! Training.

pub mod baseline;
pub mod batch;
pub mod case_source;
pub mod config;
pub mod costs;
mod cuda_graph;
pub mod dry_run;
pub mod ema;
pub mod grad_clip;
pub mod micro_batches;
pub mod presets;
pub mod ranks;
pub mod run;
pub mod run_log;
pub mod settings;
pub mod setup;
pub mod tensorboard;
pub mod trainer;
pub mod training_state;
pub mod validation;

#[cfg(test)]
mod cuda_bf16_tests;
#[cfg(test)]
mod cuda_tests;
#[cfg(test)]
mod ranks_tests;
#[cfg(test)]
mod sync_norm_tests;
