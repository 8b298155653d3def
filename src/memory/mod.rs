//! Memory: who holds which bytes, and why.
//!
//! Every buffer of the engine is carved from one [`Arena`] and entered in one [`Ledger`]. The arena hands out offsets of
//! an address range and owns no memory itself, so that planning, CPU and CUDA runs place their buffers alike.

mod arena;
mod budget;
pub mod export;
mod ledger;
mod op_cost;
pub mod size;

pub use arena::{Arena, Block, GRANULE};
pub use budget::{default_cpu_budget, format_bytes, resident_peak};
pub use ledger::{EntryId, Event, EventKind, Ledger, OutOfMemory, Peak, Phase, Remedy, Role, RoleBytes};
pub use op_cost::{OpCost, OpCostLog};
