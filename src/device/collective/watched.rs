//! MPI under srun: beside it, connections that tell of a process that has died.
//!
//! mpirun ends all when one dies. srun asks the others to stop, which they cannot hear while they wait in MPI, and kills them after
//! its `KillWait`, half a minute.

use std::rc::Rc;
use std::time::Duration;

use super::{Address, Collective, Star};
use crate::device::{Buffer, Device};
use crate::error::Result;

/// How long the connections may take: all processes are there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ranks that MPI joins and that watch each other.
pub struct Watched {
    mpi: Rc<dyn Collective>,
    star: Star,
}

/// `mpi`, watched where all reach the first one's machine, on a port that it tells them. Else all go on without.
///
/// # Errors
/// What MPI says.
pub fn watched(mpi: Rc<dyn Collective>, first: Option<Address>, say: fn(String)) -> Result<Rc<dyn Collective>> {
    let (rank, size) = (mpi.rank(), mpi.size());
    let listener = first.as_ref().filter(|_| rank == 0).and_then(|first| first.with_port(0).listen().ok());
    let own = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map_or(0, |at| at.port());
    let mut ports = vec![0; 2 * size];
    mpi.all_gather(&own.to_le_bytes(), &mut ports)?;
    let port = u16::from_le_bytes([ports[0], ports[1]]);
    let address = first.filter(|_| port > 0).map(|first| first.with_port(port));
    let star = address.and_then(|address| Star::meet_within(PATIENCE, &address, listener, rank, size, say).ok());
    let mut met = vec![0; size];
    mpi.all_gather(&[u8::from(star.is_some())], &mut met)?;
    Ok(match star {
        Some(star) if !met.contains(&0) => Rc::new(Watched { mpi, star }),
        star => {
            star.inspect(|star| star.finish(true));
            mpi
        }
    })
}

impl Collective for Watched {
    fn rank(&self) -> usize {
        self.mpi.rank()
    }

    fn size(&self) -> usize {
        self.mpi.size()
    }

    fn invitation(&self) -> Result<Vec<u8>> {
        self.mpi.invitation()
    }

    fn join(&self, device: &Device, invitation: &[u8]) -> Result<()> {
        self.mpi.join(device, invitation)
    }

    fn all_reduce(&self, values: &mut Buffer) -> Result<()> {
        self.mpi.all_reduce(values)
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.mpi.all_gather(own, all)
    }

    fn barrier(&self) -> Result<()> {
        self.mpi.barrier()
    }

    fn finish(&self, well: bool) {
        self.star.finish(well);
        self.mpi.finish(well);
    }

    fn abort(&self, code: u8) -> ! {
        self.star.abort(code)
    }
}
