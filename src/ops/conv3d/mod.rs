//! Convolution over three spatial axes.

pub(crate) mod cpu;
#[cfg(test)]
mod bench_tmp;
mod correlation;
mod direct;
mod geometry;
mod microkernel;
mod slab;
#[cfg(test)]
mod tests;
mod weight_gradient;

pub use geometry::{Geometry, Window};
