//! The library against what is known of it: golden files of the official code, standards, arithmetic.

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

mod aims;
mod bad_data;
mod checkpoint;
mod data_fixtures;
mod examples;
mod fit;
mod infer_fixtures;
mod infer_search;
mod layouts;
mod losses_parity;
mod marching_cubes;
mod mesh;
mod nifti;
mod optimizers;
mod pages;
mod parity_ossnet;
mod parity_pade;
mod parity_unet;
mod plan;
mod recompute;
mod schedules;
mod surface_distance;
