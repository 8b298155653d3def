//! The ledger's log for other programs: a table, a heap profile, and a trace for a timeline viewer.

mod csv;
mod pprof;
mod trace;

pub use csv::csv;
pub use pprof::pprof;
pub use trace::chrome_trace;
