//! A kernel launch: name, arguments, grid.

use std::borrow::Cow;
use std::ffi::c_void;

use bytemuck::{Pod, bytes_of};
use cudarc::driver::result;

use super::queue::Task;
use super::{Cuda, driver};
use crate::device::launch_config::LaunchConfig;
use crate::device::target::TICKETS;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A kernel with the arguments given so far, in the order of its parameters.
///
/// ```ignore
/// cuda.kernel("activation_forward").input(x).output(y).value(n as u64).launch(LaunchConfig::cover(n))?;
/// ```
pub struct Kernel<'a> {
    cuda: &'a Cuda,
    name: Cow<'static, str>,
    /// Each argument begins at a word of its own.
    words: Vec<u64>,
    starts: Vec<usize>,
}

impl<'a> Kernel<'a> {
    pub(super) fn new(cuda: &'a Cuda, name: impl Into<Cow<'static, str>>) -> Self {
        Self { cuda, name: name.into(), words: Vec::with_capacity(16), starts: Vec::with_capacity(16) }
    }

    /// A pointer to the elements of a tensor that the kernel reads.
    pub fn input(self, tensor: &Tensor) -> Self {
        self.value(tensor.address())
    }

    /// A pointer to the elements of a tensor, or null.
    pub fn optional(self, tensor: Option<&Tensor>) -> Self {
        self.value(tensor.map_or(0, Tensor::address))
    }

    /// A pointer to element `first` of a tensor that the kernel reads.
    pub fn input_from(self, tensor: &Tensor, first: usize) -> Self {
        debug_assert!(first <= tensor.len());
        self.value(tensor.address() + first as u64 * tensor.dtype().size())
    }

    /// A pointer to the elements of a tensor that the kernel writes.
    pub fn output(self, tensor: &mut Tensor) -> Self {
        self.value(tensor.address())
    }

    /// A pointer to element `first` of a tensor that the kernel writes.
    pub fn output_from(self, tensor: &mut Tensor, first: usize) -> Self {
        debug_assert!(first <= tensor.len());
        self.value(tensor.address() + first as u64 * tensor.dtype().size())
    }

    /// A number, or a struct laid out as the kernel's (`#[repr(C)]`, no padding). Its type must be the parameter's.
    pub fn value<T: Pod>(mut self, value: T) -> Self {
        self.starts.push(self.words.len());
        for piece in bytes_of(&value).chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.words.push(u64::from_le_bytes(word));
        }
        self
    }

    /// A pointer to `count` tickets (`kernels/last_block.cuh`), all zero.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if there are not as many.
    pub fn tickets(self, count: usize) -> Result<Self> {
        let address = self.ticket_address(count)?;
        Ok(self.value(address))
    }

    /// Where `count` tickets lie, for a struct that names them.
    ///
    /// # Errors
    /// As [`Kernel::tickets`].
    pub fn ticket_address(&self, count: usize) -> Result<u64> {
        match count <= TICKETS {
            true => Ok(self.cuda.address(0)),
            false => Err(Error::shape(
                "kernel",
                format!(
                    "{}: {count} sums over blocks at once, and {TICKETS} are the most; use a smaller batch",
                    self.name
                ),
            )),
        }
    }

    /// Launches. An empty grid does nothing.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for a grid that no device takes, [`crate::Error::Device`]; both name the kernel, which may be
    /// one of those before (see `queue.rs`).
    pub fn launch(self, grid: LaunchConfig) -> Result<()> {
        if grid.is_empty() {
            return Ok(());
        }
        grid.check().map_err(|problem| Error::shape("kernel", format!("{}: {problem}", self.name)))?;
        let name = self.cuda.modules.ask(&self.name)?;
        self.cuda.submit(Task::Launch { name, words: self.words, starts: self.starts, grid })
    }
}

impl Cuda {
    /// Launches a kernel that was asked for.
    pub(super) fn launch(
        &self,
        name: &'static str,
        mut words: Vec<u64>,
        starts: &[usize],
        grid: LaunchConfig,
    ) -> Result<()> {
        let failed = |e| driver::failed(&format!("kernel {name}"), e);
        let function = self.modules.function(name, grid.shared)?;
        let base = words.as_mut_ptr();
        // SAFETY: every start lies inside the words.
        let mut arguments: Vec<*mut c_void> =
            starts.iter().map(|&start| unsafe { base.add(start) }.cast::<c_void>()).collect();
        let (blocks, threads) = (grid.blocks, grid.threads);
        // SAFETY: the arguments are those that the kernel's file declares, which the tests of every op check by running it
        // under an emulator that stops accesses outside the buffers; the buffers live until their free, which the stream
        // orders after this launch.
        unsafe {
            result::launch_kernel(
                function,
                (blocks[0], blocks[1], blocks[2]),
                (threads[0], threads[1], threads[2]),
                grid.shared,
                self.stream.cu_stream(),
                &mut arguments,
            )
        }
        .map_err(failed)?;
        *self.lock_launches().entry(name).or_default() += 1;
        if self.wait {
            self.stream.synchronize().map_err(failed)?;
        }
        Ok(())
    }
}
