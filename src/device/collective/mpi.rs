//! MPI, by whatever library the program was built with.
//!
//! All calls come from the thread that trains. MPI's own answer to a fault (a lost rank, a lost network) is to end the run,
//! which is what is wanted.

use std::cell::RefCell;

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

use super::Collective;
use crate::device::Buffer;
use crate::error::{Error, Result};

/// Numbers of one message: their copy, which the sum replaces, takes half a MiB outside the ledger.
const MESSAGE: usize = 1 << 17;

/// The processes that MPI's launcher started.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Dropping it finalises MPI, which waits for all ranks: not for a process that fails. Only [`Collective::finish`] drops
    /// it.
    universe: RefCell<Option<std::mem::ManuallyDrop<Universe>>>,
    message: RefCell<Vec<f32>>,
}

impl Mpi {
    /// Joins them.
    ///
    /// # Errors
    /// [`Error::Device`] if this process has done so before.
    pub fn start() -> Result<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Error::Device("MPI was started before in this process; report this".into()))?;
        let universe = RefCell::new(Some(std::mem::ManuallyDrop::new(universe)));
        Ok(Self { world: SimpleCommunicator::world(), universe, message: RefCell::default() })
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn all_reduce(&self, values: &mut Buffer) -> Result<()> {
        let mut message = self.message.borrow_mut();
        for piece in values.as_mut_slice::<f32>().chunks_mut(MESSAGE) {
            message.clear();
            message.extend_from_slice(piece);
            self.world.all_reduce_into(&message[..], piece, SystemOperation::sum());
        }
        Ok(())
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.world.all_gather_into(own, all);
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.world.barrier();
        Ok(())
    }

    fn finish(&self, _: bool) {
        self.universe.take().map(std::mem::ManuallyDrop::into_inner);
    }

    fn abort(&self, code: u8) -> ! {
        self.world.abort(code.into())
    }
}
