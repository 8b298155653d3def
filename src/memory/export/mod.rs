//! The ledger's log for other programs: a table, and a trace for a timeline viewer.

mod csv;
mod trace;

pub use csv::csv;
pub use trace::chrome_trace;
