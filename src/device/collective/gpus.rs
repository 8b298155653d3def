//! GPUs: buffers of theirs are summed and gathered by NCCL; all else is exchanged by another transport.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::Collective;
use crate::device::cuda::{self, Communicator};
use crate::device::device_info::NCCL_ID;
use crate::device::{Backend, Buffer, Cuda, Device};
use crate::error::{Error, Result};

/// Ranks with a GPU each.
pub struct Gpus {
    /// How they talk. It works before there is a device, and still when one has failed.
    told: Rc<dyn Collective>,
    joined: RefCell<Option<(Device, Communicator)>>,
}

impl Gpus {
    /// The ranks that `told` joins.
    pub fn of(told: Rc<dyn Collective>) -> Self {
        Self { told, joined: RefCell::default() }
    }

    /// Calls NCCL for buffers of the device that has joined.
    fn with<T>(&self, buffer: &Buffer, call: impl FnOnce(&Cuda, &Communicator) -> Result<T>) -> Result<T> {
        match (&*self.joined.borrow(), buffer.device().backend()) {
            (Some((device, communicator)), Backend::Cuda(cuda)) if device.same(buffer.device()) => {
                call(cuda, communicator)
            }
            _ => Err(Error::Device("a buffer of no GPU that has joined the others; report this".into())),
        }
    }
}

impl Collective for Gpus {
    fn rank(&self) -> usize {
        self.told.rank()
    }

    fn size(&self) -> usize {
        self.told.size()
    }

    fn invitation(&self) -> Result<Vec<u8>> {
        cuda::load_nccl()?;
        if self.rank() == 0 { cuda::nccl_id().map(Vec::from) } else { Ok(vec![0; NCCL_ID]) }
    }

    fn join(&self, device: &Device, invitation: &[u8]) -> Result<()> {
        let (Backend::Cuda(cuda), Ok(id)) = (device.backend(), invitation.try_into()) else {
            return Err(Error::Device("no GPU, or no NCCL id, to join with; report this".into()));
        };
        let communicator = cuda.communicator(id, self.rank(), self.size())?;
        self.joined.replace(Some((device.clone(), communicator)));
        Ok(())
    }

    fn all_reduce(&self, values: &mut Buffer) -> Result<()> {
        self.with(values, |cuda, ranks| {
            cuda.all_reduce(ranks, values.address(), values.len() / size_of::<f32>() as u64)
        })
    }

    fn gather_part(&self, own: &Buffer, part: Range<u64>, all: &mut Buffer) -> Result<()> {
        let (from, to) = (own.address() + part.start, all.address());
        self.with(own, |cuda, ranks| cuda.all_gather(ranks, from, to, part.end - part.start))
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.told.all_gather(own, all)
    }

    fn barrier(&self) -> Result<()> {
        self.told.barrier()
    }

    fn finish(&self, well: bool) {
        // NCCL would wait for work that may never end.
        if let Some((_, communicator)) = self.joined.take().filter(|_| well) {
            communicator.leave();
        }
        self.told.finish(well);
    }

    fn abort(&self, code: u8) -> ! {
        self.told.abort(code)
    }
}
