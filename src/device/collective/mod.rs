//! Collectives: what the processes ("ranks") of one run tell each other.
//!
//! Every rank calls the same collectives in the same order; each call waits for all. Nothing here starts processes: launchers
//! do ([`Launch`] reads what they say), and transports are those of clusters (MPI; one process needs none). A rank that
//! dies is the launcher's to notice: it ends the others.

mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(test)]
pub(crate) mod threads;

use std::rc::Rc;

pub use launch::{Launch, Launcher};

use crate::error::{Error, Result};

/// The ranks of a run.
pub trait Collective {
    /// The number of this one, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Replaces `values`, as many on every rank, by their sums over all ranks. The order of the additions is the transport's.
    ///
    /// # Errors
    /// What the transport says.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// Every rank's `own` bytes, as many on each, in the order of ranks: `all` is `size` times as long.
    ///
    /// # Errors
    /// What the transport says.
    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()>;

    /// Replaces `bytes`, as many on every rank, by those of rank `root`.
    ///
    /// # Errors
    /// What the transport says.
    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<()>;

    /// Waits until all ranks have come here.
    ///
    /// # Errors
    /// What the transport says.
    fn barrier(&self) -> Result<()>;

    /// Leaves the group, as the last call of all.
    fn finish(&self);

    /// Ends all ranks at once with exit status `code`.
    fn abort(&self, code: u8) -> !;
}

/// One process.
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        all.copy_from_slice(own);
        Ok(())
    }

    fn broadcast(&self, _: usize, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn finish(&self) {}

    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}

/// Joins the processes that were launched with this one, if any were.
///
/// # Errors
/// [`Error::Usage`] if several were launched and this program has no way to talk to the others, or if the transport counts
/// other processes than the launcher.
pub fn join(launch: Option<&Launch>) -> Result<Rc<dyn Collective>> {
    match launch {
        Some(launch) if launch.size > 1 => joined(launch),
        _ => Ok(Rc::new(Alone)),
    }
}

fn joined(launch: &Launch) -> Result<Rc<dyn Collective>> {
    let Launch { launcher, rank, size, .. } = *launch;
    let told = format!("{launcher} started this as process {rank} of {size}");
    if launcher == Launcher::Environment {
        let problem = "which MPI cannot join, and NCCL is not there yet";
        return Err(Error::Usage(format!(
            "{told}, {problem}; start it with mpirun or srun (docs/distributed.md), or unset WORLD_SIZE for one process"
        )));
    }
    #[cfg(not(feature = "mpi"))]
    {
        let problem = "and this program was built without MPI: each would train alone";
        Err(Error::Usage(format!(
            "{told}, {problem}; build it with --features mpi (docs/distributed.md), or start one process"
        )))
    }
    #[cfg(feature = "mpi")]
    {
        let world = mpi::Mpi::start()?;
        if (world.rank(), world.size()) != (rank, size) {
            let found = format!("its MPI says {} of {}", world.rank(), world.size());
            return Err(Error::Usage(format!(
                "{told}, but {found}; start it with the launcher of the MPI it was built with (srun: --mpi=pmix or pmi2)"
            )));
        }
        Ok(Rc::new(world))
    }
}
