//! A buffer: a block of a device's arena that frees itself.

use bytemuck::Pod;

use super::{Backend, Device};
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
        if cfg!(debug_assertions) {
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
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        match self.device.backend() {
            // SAFETY: the arena gave this block to this buffer alone; the mapping outlives it, for the buffer holds the
            // device; `block` lies inside the mapping, and anonymous pages are readable from the start.
            Backend::Cpu { memory, .. } => bytemuck::cast_slice(unsafe {
                std::slice::from_raw_parts(memory.as_ptr().add(self.block.offset as usize), self.bytes as usize)
            }),
            Backend::Plan { .. } => &[],
        }
    }

    /// The contents for writing; empty on a plan.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        match self.device.backend() {
            // SAFETY: as above, and `&mut self` makes the borrow unique.
            Backend::Cpu { memory, .. } => bytemuck::cast_slice_mut(unsafe {
                std::slice::from_raw_parts_mut(memory.as_mut_ptr().add(self.block.offset as usize), self.bytes as usize)
            }),
            Backend::Plan { .. } => &mut [],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut books = self.device.books();
        if let Some(block) = books.ledger.free(self.entry) {
            books.arena.free(block);
        }
    }
}
