//! Training and scoring.

pub mod baseline;
pub mod batch;
pub mod cases;
pub mod checkpoint;
pub mod choose;
pub mod costs;
pub mod evaluate;
pub mod interrupt;
pub mod metrics;
pub mod presets;
pub mod rehearsal;
pub mod settings;
pub mod state;
pub mod step;
pub mod trainer;
