//! Executes kernels, a warp at a time: [`warp`] is its state, [`lanes`] its register file, [`access`] its way to memory,
//! [`run`] its scheduler, [`launch`] the loop over blocks.

pub mod access;
pub mod block;
pub mod lanes;
pub mod launch;
pub mod run;
pub mod simd;
pub mod warp;
