//! Memory: who holds which bytes, and why.
//!
//! Every buffer of the engine is carved from one [`Arena`] and entered in one [`Ledger`]. The arena hands out offsets of
//! an address range and owns no memory itself, so that planning, CPU and CUDA runs place their buffers alike: those of a
//! step by a [`layout`] made before it, all others by best fit.

mod arena;
mod budget;
mod control_group;
pub mod export;
pub mod layout;
mod ledger;
mod op_cost;
mod out_of_memory;
mod role;
pub mod size;
mod step_log;

pub use arena::{Arena, Block, GRANULE};
pub use budget::{default_cpu_budget, format_bytes, resident_peak, return_large_blocks};
pub use ledger::{EntryId, Event, EventKind, Ledger, Peak};
pub use op_cost::{OpCost, OpCostLog};
pub use out_of_memory::{OutOfMemory, Remedy};
pub use role::{Phase, Role, RoleBytes};
pub(crate) use step_log::{LayoutMaker, Request, StepLog};
