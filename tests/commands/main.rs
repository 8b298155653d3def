//! The program as a user runs it: one module a command or a promise. Most tests start the real binary in a folder of their
//! own (`support::cli`).

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod command_line;
mod compare;
mod convert;
#[cfg(feature = "exhaustive")]
mod crash_loops;
mod determinism;
mod ensembles;
mod evaluate;
mod faults;
mod feeds;
mod folds;
mod hostile;
mod infer;
mod infer_memory;
mod infer_meshes;
mod infer_shards;
mod infer_whole_body;
mod inspect;
mod learning;
mod left_over;
mod memory_command;
mod names;
mod out_of_memory;
mod own_data;
#[cfg(feature = "report")]
mod pages;
mod plan;
mod profile;
mod ranks;
mod resident_memory;
mod roofline;
mod table1;
mod training;
mod world;
