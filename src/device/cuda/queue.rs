//! Work that waits for its kernel: what a step launches is sent while the driver still compiles.
//!
//! A launch whose kernel is being loaded is kept, and so is everything behind it, in order; the caller goes on and asks for the
//! next kernels, which are then compiled side by side. Whatever looks at the device (a copy to or from the host, waiting, an
//! event, a capture) first sends all of it. Once every kernel of a step is loaded nothing is kept any more. Errors of kept work
//! come from the call that sends it, as errors of kernels come late anyway.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Cuda, driver};
use crate::device::launch_config::LaunchConfig;
use crate::error::Result;

/// Something for the stream.
pub(super) enum Task {
    /// A kernel that was asked for, the words of its arguments and where each begins.
    Launch { name: &'static str, words: Vec<u64>, starts: Vec<usize>, grid: LaunchConfig },
    /// Bytes on the device, from and to these addresses.
    Copy { to: u64, from: u64, bytes: u64 },
    /// Zero bytes.
    Zero { address: u64, bytes: u64 },
    /// A buffer that is an allocation of its own goes.
    Free { address: u64 },
}

/// What waits, oldest first.
#[derive(Default)]
pub(super) struct Queue(Mutex<VecDeque<Task>>);

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what waits.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}

impl Cuda {
    /// Does `task`, or keeps it behind what waits for a kernel.
    pub(super) fn submit(&self, task: Task) -> Result<()> {
        let mut waiting = self.queue.lock();
        if waiting.is_empty() && (self.is_ready(&task) || !self.keeps()) {
            return self.perform(task);
        }
        waiting.push_back(task);
        while waiting.front().is_some_and(|task| self.is_ready(task)) {
            waiting.pop_front().map_or(Ok(()), |task| self.perform(task))?;
        }
        Ok(())
    }

    /// The same for what no launch's failure may be lost behind: it never does anything but `task` itself.
    pub(super) fn note(&self, task: Task) -> Result<()> {
        let mut waiting = self.queue.lock();
        if waiting.is_empty() {
            return self.perform(task);
        }
        waiting.push_back(task);
        Ok(())
    }

    /// Does everything that waits.
    pub(super) fn settle(&self) -> Result<()> {
        let mut waiting = self.queue.lock();
        while let Some(task) = waiting.pop_front() {
            self.perform(task)?;
        }
        Ok(())
    }

    /// False where each launch must have happened when its call returns: an observer and cuDNN see the device between launches.
    fn keeps(&self) -> bool {
        !self.wait && self.observer.is_none() && self.cudnn.is_none() && !self.is_capturing()
    }

    fn is_ready(&self, task: &Task) -> bool {
        match task {
            Task::Launch { name, .. } => self.modules.is_ready(name),
            Task::Copy { .. } | Task::Zero { .. } | Task::Free { .. } => true,
        }
    }

    fn perform(&self, task: Task) -> Result<()> {
        self.bind()?;
        match task {
            Task::Launch { name, words, starts, grid } => self.launch(name, words, &starts, grid),
            // SAFETY: both ranges lie in live buffers of the arena: the callers have compared the lengths.
            Task::Copy { to, from, bytes } => {
                unsafe { cudarc::driver::result::memcpy_dtod_async(to, from, bytes as usize, self.stream.cu_stream()) }
                    .map_err(|e| driver::failed("copying on the device", e))
            }
            // SAFETY: the range is a live buffer of the arena.
            Task::Zero { address, bytes } => {
                unsafe { cudarc::driver::result::memset_d8_async(address, 0, bytes as usize, self.stream.cu_stream()) }
                    .map_err(|e| driver::failed("filling memory", e))
            }
            Task::Free { address } => self.lock_range().free(address),
        }
    }
}
