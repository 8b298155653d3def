//! What `ossnet compare` shows: the results object, the table on the terminal and the HTML page.
//!
//! The room knows nothing of the engine but how bytes are written. Its input is plain data: [`Results`], which is also `results.json`, and
//! [`ReportData`], the larger arrays that only the page draws.
//!
//! ```
//! use ossnet::report::{ReportData, Results, page, table};
//!
//! let results = Results { device: "cpu".into(), threads: 2, seed: 1, version: "0.1.0".into(), ..Results::default() };
//! assert!(page(&results, &ReportData::default())?.starts_with("<!DOCTYPE html>"));
//! assert!(table(&results).contains("seed 1"));
//! # Ok::<(), ossnet::Error>(())
//! ```

// The table alone does not use all that the page needs.
#![cfg_attr(not(feature = "report"), allow(dead_code))]

#[cfg(feature = "report")]
mod charts;
#[cfg(feature = "report")]
mod contour;
#[cfg(feature = "report")]
mod escape;
#[cfg(all(feature = "report", feature = "train"))]
mod evaluation;
#[cfg(all(test, feature = "report"))]
pub(crate) mod fixtures;
#[cfg(feature = "report")]
mod html;
#[cfg(feature = "report")]
mod image;
#[cfg(feature = "report")]
mod memory;
#[cfg(feature = "report")]
mod montage;
mod number_format;
#[cfg(feature = "report")]
mod palette;
#[cfg(feature = "report")]
mod plot;
#[cfg(feature = "report")]
mod report_data;
#[cfg(feature = "report")]
mod resolution;
mod results;
mod roles;
#[cfg(feature = "report")]
mod roofline;
#[cfg(feature = "report")]
mod scans;
#[cfg(feature = "report")]
mod schedules;
#[cfg(feature = "report")]
mod slices;
#[cfg(feature = "report")]
mod stack;
mod statistics;
mod statistics_table;
#[cfg(feature = "report")]
mod strips;
mod summary;
#[cfg(feature = "report")]
mod svg;
mod table;
mod text_table;
#[cfg(feature = "report")]
mod training;

#[cfg(all(feature = "report", feature = "train"))]
pub use evaluation::evaluation_page;
#[cfg(feature = "report")]
pub use html::page;
#[cfg(feature = "report")]
pub use image::{ImageVolume, case_slices};
#[cfg(feature = "report")]
pub use memory::{MemoryPage, memory_page};
#[cfg(feature = "report")]
pub use montage::montage;
pub use number_format::{count, counted, mib};
#[cfg(feature = "report")]
pub use report_data::{
    CaseFacts, CaseSlices, HEADS_CAVEATS, LossCurve, MemoryEvent, ModelMasks, Plane, ReportData, RunFacts, Slice,
    Timeline,
};
#[cfg(feature = "report")]
pub use resolution::{Crossover, Growth, Resolution};
pub use results::{BaselineResult, CaseScore, ClassScore, ModelResult, Results, RoleBytes};
pub use roles::display as role_name;
#[cfg(feature = "report")]
pub use roofline::{RooflineMark, RooflinePage, roofline_page};
#[cfg(feature = "report")]
pub use scans::{SegmentedClass, SegmentedScan, inspection_page, scans_page};
#[cfg(feature = "report")]
pub use schedules::{ScheduleMark, Schedules};
#[cfg(feature = "report")]
pub use slices::PicturedCase;
#[cfg(feature = "report")]
pub use stack::Stack;
pub use statistics::{ClassStatistics, MethodStatistics, PairStatistics, Statistics};
pub use summary::conclusion;
pub use table::table;
pub use text_table::TextTable;
#[cfg(feature = "report")]
pub use training::{TrainingRun, training_page};
