//! Collectives: what the processes ("ranks") of one run tell each other.
//!
//! Every rank calls the same collectives in the same order; each call waits for all. Nothing here starts processes: launchers
//! do ([`Launch`] reads what they say), and transports are those of clusters: MPI; NCCL for what lies on GPUs, beside MPI or
//! connections to the first process; one process needs none. A rank that dies is noticed by mpirun, or by those
//! connections.

mod address;
mod gpus;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
mod star;
#[cfg(test)]
pub(crate) mod threads;
#[cfg(feature = "mpi")]
mod watched;

use std::ops::Range;
use std::rc::Rc;

use address::Address;
pub use address::RENDEZVOUS;
use gpus::Gpus;
pub use launch::{Launch, Launcher};
use star::Star;

use super::{Buffer, Device};
use crate::error::{Error, Result};

/// The ranks of a run.
pub trait Collective {
    /// The number of this one, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What rank 0 tells the others so that their devices can join: the same number of bytes on every rank.
    ///
    /// # Errors
    /// What the transport says; a library that is missing.
    fn invitation(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// From now on buffers of `device` can be summed and gathered. Waits for all, whom rank 0 has told its `invitation`.
    ///
    /// # Errors
    /// What the transport says.
    fn join(&self, _device: &Device, _invitation: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Replaces f32, as many on every rank, by their sums over all ranks, on the device that holds them. The order of the
    /// additions is the transport's.
    ///
    /// # Errors
    /// What the transport says.
    fn all_reduce(&self, values: &mut Buffer) -> Result<()>;

    /// The bytes `part` of every rank's `own` buffer, in the order of ranks, at the beginning of `all` on the same device.
    ///
    /// # Errors
    /// What the transport says.
    fn gather_part(&self, own: &Buffer, part: Range<u64>, all: &mut Buffer) -> Result<()> {
        let part = &own.as_slice::<u8>()[part.start as usize..part.end as usize];
        self.all_gather(part, &mut all.as_mut_slice()[..self.size() * part.len()])
    }

    /// Every rank's `own` bytes, as many on each, in the order of ranks: `all` is `size` times as long.
    ///
    /// # Errors
    /// What the transport says.
    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()>;

    /// Waits until all ranks have come here.
    ///
    /// # Errors
    /// What the transport says.
    fn barrier(&self) -> Result<()>;

    /// Leaves the group, as the last call of all; whether all has gone `well`.
    fn finish(&self, well: bool);

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

    fn all_reduce(&self, _: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn gather_part(&self, own: &Buffer, part: Range<u64>, all: &mut Buffer) -> Result<()> {
        all.copy_part(0, own, part)
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        all.copy_from_slice(own);
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn finish(&self, _: bool) {}

    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}

/// Joins the processes that were launched with this one, if any were. With `gpus` each of them computes on a GPU. `say` tells the
/// user of one that has died.
///
/// # Errors
/// [`Error::Usage`] if several were launched and this program has no way to talk to the others, or if the transport counts
/// other processes than the launcher; [`Error::Device`] if they do not meet.
pub fn join(launch: Option<&Launch>, gpus: bool, say: fn(String)) -> Result<Rc<dyn Collective>> {
    let Some(launch) = launch.filter(|launch| launch.size > 1) else { return Ok(Rc::new(Alone)) };
    let Launch { rank, size, .. } = *launch;
    let variable = |name: &str| std::env::var(name).ok();
    let by_mpi = cfg!(feature = "mpi") && launch.has_mpi(variable) && variable(RENDEZVOUS).is_none();
    Ok(match (gpus, by_mpi) {
        (false, _) => by_mpi_alone(launch, say)?,
        (true, true) => Rc::new(Gpus::of(by_mpi_alone(launch, say)?)),
        (true, false) => {
            let address = Address::read(launch, variable)?;
            Rc::new(Gpus::of(Rc::new(Star::meet(&address, rank, size, say)?)))
        }
    })
}

/// Processes that MPI joins.
fn by_mpi_alone(launch: &Launch, say: fn(String)) -> Result<Rc<dyn Collective>> {
    let Launch { launcher, rank, size, .. } = *launch;
    let told = format!("{launcher} started this as process {rank} of {size}");
    if launcher == Launcher::Environment {
        let problem = "which MPI cannot join: processes on CPUs need it";
        return Err(Error::Usage(format!(
            "{told}, {problem}; give --device cuda for GPUs, start it with mpirun or srun (docs/distributed.md), or unset \
             WORLD_SIZE for one process"
        )));
    }
    #[cfg(not(feature = "mpi"))]
    {
        _ = say;
        let problem = "and this program was built without MPI: each would train alone";
        Err(Error::Usage(format!(
            "{told}, {problem}; build it with --features mpi (docs/distributed.md), give --device cuda for GPUs, or start one process"
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
        let world = Rc::new(world);
        match launcher {
            Launcher::OpenMpi => Ok(world),
            _ => watched::watched(world, Address::read(launch, |name| std::env::var(name).ok()).ok(), say),
        }
    }
}
