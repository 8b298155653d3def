//! A buffer: a block of a device's arena that frees itself.

use std::ops::Range;

use bytemuck::Pod;

use super::cuda::Fetch;
use super::{Backend, Device};
use crate::error::Result;
use crate::memory::{Block, EntryId, Role};

/// A block of a device's memory, entered in its ledger.
#[derive(Debug)]
pub struct Buffer {
    device: Device,
    entry: EntryId,
    block: Block,
    bytes: u64,
}

impl Buffer {
    pub(super) fn new(device: Device, entry: EntryId, block: Block, bytes: u64) -> Self {
        let mut buffer = Self { device, entry, block, bytes };
        if cfg!(debug_assertions) && !matches!(buffer.device.backend(), Backend::Cuda(_)) {
            // All bits set is a NaN in every float format: reading what nobody wrote shows.
            buffer.as_mut_slice::<u8>().fill(0xff);
        }
        buffer
    }

    /// The device that holds the buffer.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes asked for.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// True if no bytes were asked for.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Gives the buffer another role in the ledger.
    pub fn retag(&self, role: Role) {
        self.device.ledger(|ledger| ledger.retag(self.entry, role));
    }

    /// The contents as elements of `T`; empty on a plan.
    ///
    /// # Panics
    /// On CUDA, whose memory the host cannot see: that is a bug in the engine, never a user's input.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        match self.device.backend() {
            // SAFETY: the arena gave this block to this buffer alone; the mapping outlives it, for the buffer holds the
            // device; `block` lies inside the mapping, and anonymous pages are readable from the start.
            Backend::Cpu { memory, .. } => bytemuck::cast_slice(unsafe {
                std::slice::from_raw_parts(memory.as_ptr().add(self.block.offset as usize), self.bytes as usize)
            }),
            Backend::Plan { .. } => &[],
            Backend::Cuda(_) => panic!("device memory was read as the host's"),
        }
    }

    /// The contents for writing; empty on a plan.
    ///
    /// # Panics
    /// As [`Buffer::as_slice`].
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        match self.device.backend() {
            // SAFETY: as above, and `&mut self` makes the borrow unique.
            Backend::Cpu { memory, .. } => bytemuck::cast_slice_mut(unsafe {
                std::slice::from_raw_parts_mut(memory.as_mut_ptr().add(self.block.offset as usize), self.bytes as usize)
            }),
            Backend::Plan { .. } => &mut [],
            Backend::Cuda(_) => panic!("device memory was written as the host's"),
        }
    }

    /// Device address on CUDA; 0 elsewhere.
    pub(crate) fn address(&self) -> u64 {
        match self.device.backend() {
            Backend::Cuda(cuda) => cuda.address(self.block.offset),
            Backend::Cpu { .. } | Backend::Plan { .. } => 0,
        }
    }

    /// Copies the first elements from the host; nothing on a plan.
    ///
    /// # Errors
    /// What the driver says.
    pub fn write<T: Pod>(&mut self, values: &[T]) -> Result<()> {
        assert!(size_of_val(values) as u64 <= self.bytes, "more values than the buffer holds");
        match self.device.backend() {
            Backend::Cpu { .. } => self.as_mut_slice()[..values.len()].copy_from_slice(values),
            Backend::Cuda(cuda) => cuda.upload(self.address(), bytemuck::cast_slice(values))?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Copies the first elements to the host; nothing on a plan.
    ///
    /// # Errors
    /// What the driver says, of this copy or of a kernel before it.
    pub fn read<T: Pod>(&self, values: &mut [T]) -> Result<()> {
        assert!(size_of_val(values) as u64 <= self.bytes, "more values than the buffer holds");
        match self.device.backend() {
            Backend::Cpu { .. } => values.copy_from_slice(&self.as_slice()[..values.len()]),
            Backend::Cuda(cuda) => cuda.download(self.address(), bytemuck::cast_slice_mut(values))?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Starts to copy the first bytes to the host, behind all work so far; see [`Later`].
    ///
    /// # Errors
    /// What the driver says.
    pub fn fetch(&self, bytes: usize) -> Result<Later> {
        assert!(bytes as u64 <= self.bytes, "more bytes than the buffer holds");
        Ok(match self.device.backend() {
            Backend::Cpu { .. } => Later::Here(self.as_slice::<u8>()[..bytes].to_vec()),
            Backend::Cuda(cuda) => Later::OnItsWay(self.device.clone(), cuda.fetch(self.address(), bytes)?),
            Backend::Plan { .. } => Later::Here(vec![0; bytes]),
        })
    }

    /// Copies another buffer of the same length on the same device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_from(&mut self, other: &Buffer) -> Result<()> {
        assert!(self.bytes == other.bytes && self.device.same(&other.device), "buffers that cannot be copied");
        match self.device.backend() {
            Backend::Cpu { .. } => self.as_mut_slice::<u8>().copy_from_slice(other.as_slice()),
            Backend::Cuda(cuda) => cuda.copy(self.address(), other.address(), self.bytes)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Copies the bytes `part` of another buffer on the same device, to those from `at` on.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy_part(&mut self, at: u64, other: &Buffer, part: Range<u64>) -> Result<()> {
        let bytes = part.end - part.start;
        assert!(
            part.end <= other.bytes && at + bytes <= self.bytes && self.device.same(&other.device),
            "parts of buffers that cannot be copied"
        );
        match self.device.backend() {
            Backend::Cpu { .. } => self.as_mut_slice::<u8>()[at as usize..][..bytes as usize]
                .copy_from_slice(&other.as_slice()[part.start as usize..part.end as usize]),
            Backend::Cuda(cuda) => cuda.copy(self.address() + at, other.address() + part.start, bytes)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Sets all bytes to zero.
    ///
    /// # Errors
    /// What the driver says.
    pub fn zero(&mut self) -> Result<()> {
        match self.device.backend() {
            Backend::Cpu { .. } => self.as_mut_slice::<u8>().fill(0),
            Backend::Cuda(cuda) => cuda.zero(self.address(), self.bytes)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }
}

/// Bytes that the host will want later: a CUDA device works on meanwhile.
pub enum Later {
    /// They are here; zeros on a plan.
    Here(Vec<u8>),
    /// They are coming from this device.
    OnItsWay(Device, Fetch),
}

impl Later {
    /// The bytes as values; waits for what was launched before them, and for nothing behind.
    ///
    /// # Errors
    /// What the driver says, of this copy or of a kernel before it.
    pub fn wait<T: Pod>(self) -> Result<Vec<T>> {
        let bytes = match self {
            Self::Here(bytes) => bytes,
            Self::OnItsWay(device, fetch) => match device.backend() {
                Backend::Cuda(cuda) => cuda.arrived(fetch)?,
                Backend::Cpu { .. } | Backend::Plan { .. } => Vec::new(),
            },
        };
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Backend::Cuda(cuda) = self.device.backend() {
            cuda.freed(self.block.offset, self.bytes);
        }
        self.device.state().release(self.entry);
    }
}
