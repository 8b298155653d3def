//! CUDA devices: under the emulator where there is no GPU.
#![cfg(feature = "cuda")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

mod counts;
mod feed;
mod graphs;
mod inference;
mod program;
mod several;
