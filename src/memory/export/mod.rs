//! The ledger's log for other programs: a table, a heap profile, a trace for a timeline viewer, and a PyTorch memory
//! snapshot.

mod csv;
mod pickle;
mod pprof;
mod snapshot;
mod trace;

pub use csv::csv;
pub use pprof::pprof;
pub use snapshot::snapshot;
pub use trace::chrome_trace;
