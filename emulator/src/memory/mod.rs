//! Device memory: an allocation table whose addresses are never given twice.
//!
//! Between allocations lie guard gaps, so that an index one past the end hits nothing; freed addresses stay dead, so that
//! a use after free is found. Backing pages come from the operating system and exist only once touched: a large arena
//! costs what is used of it.

pub mod shadow;

use shadow::Shadow;

/// Bytes of guard gap after every allocation, at least.
pub const GUARD: u64 = 512;
/// Alignment of every allocation, as the real driver's.
pub const ALIGN: u64 = 256;
/// Fresh memory up to this size is filled with ones bits (a NaN, and minus one), so that nothing works by luck.
const FILL_LIMIT: u64 = 64 << 20;

/// One allocation.
pub struct Allocation {
    /// Device address of its first byte.
    pub base: u64,
    /// Bytes asked for.
    pub size: u64,
    /// Where it lies on the host.
    pub host: *mut u8,
    mapped: usize,
    /// True for module variables, which are no leak.
    pub module: bool,
    /// What the checkers know of it; none where it was only used unchecked.
    pub shadow: Option<Box<Shadow>>,
}

impl Allocation {
    /// What the checkers know; everything counts as written where nothing was tracked so far.
    pub fn shadow_mut(&mut self) -> &mut Shadow {
        self.shadow.get_or_insert_with(|| Box::new(Shadow::defined(self.size)))
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `allocate` and nothing keeps pointers into it beyond a launch or a copy, during
        // which the table is locked.
        unsafe { libc::munmap(self.host.cast(), self.mapped) };
    }
}

/// Private pages of the host at an address of its choice, which exist only once touched.
fn anonymous(bytes: usize) -> Option<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: an anonymous private mapping at an address of the system's choice.
    let host = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    (host != libc::MAP_FAILED).then_some(host.cast())
}

/// The memory of one device.
pub struct Memory {
    /// Sorted by address.
    pub allocations: Vec<Allocation>,
    next: u64,
    /// Bytes the device pretends to have.
    pub capacity: u64,
    /// Bytes allocated now.
    pub live: u64,
    /// Most bytes that were ever allocated at once since the last reset.
    pub peak: u64,
}

// SAFETY: the host pointers are owned mappings; the table is only used under its device's lock.
unsafe impl Send for Memory {}

impl Memory {
    /// An empty memory whose addresses begin at `start`.
    pub fn new(start: u64, capacity: u64) -> Memory {
        Memory { allocations: Vec::new(), next: start, capacity, live: 0, peak: 0 }
    }

    /// The address the next allocation gets.
    pub fn next_address(&self) -> u64 {
        self.next
    }

    /// Lets addresses begin at `next`.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Allocates `size` bytes; `undefined` asks to track which bytes were written. None where the memory is full.
    pub fn allocate(&mut self, size: u64, undefined: bool, module: bool) -> Option<u64> {
        if size == 0 || size > self.capacity.saturating_sub(self.live) {
            return None;
        }
        let mapped = usize::try_from(size).ok()?;
        let host = anonymous(mapped)?;
        if size <= FILL_LIMIT && !module {
            // SAFETY: the mapping is `size` bytes long.
            unsafe { host.write_bytes(0xff, mapped) };
        }
        let base = self.next;
        self.next += size.next_multiple_of(ALIGN) + GUARD;
        let shadow = undefined.then(|| Box::new(Shadow::undefined(size)));
        self.allocations.push(Allocation { base, size, host, mapped, module, shadow });
        self.live += if module { 0 } else { size };
        self.peak = self.peak.max(self.live);
        Some(base)
    }

    /// Reserves an address range of `size` bytes without memory behind it. None where the host refuses it.
    pub fn reserve(&mut self, size: u64) -> Option<u64> {
        let mapped = usize::try_from(size).ok().filter(|&size| size > 0)?;
        let host = anonymous(mapped)?;
        let base = self.next;
        self.next += size.next_multiple_of(ALIGN) + GUARD;
        self.allocations.push(Allocation { base, size: 0, host, mapped, module: false, shadow: None });
        Some(base)
    }

    /// Puts `bytes` of memory behind a reserved range, at the end of what it has already; false where that is not
    /// `address`, where the reservation ends before, or where the memory is full.
    pub fn extend(&mut self, address: u64, bytes: u64, undefined: bool) -> bool {
        if bytes > self.capacity.saturating_sub(self.live) {
            return false;
        }
        let fits = |a: &&mut Allocation| a.base + a.size == address && bytes <= a.mapped as u64 - a.size;
        let Some(a) = self.allocations.iter_mut().find(fits) else { return false };
        a.size += bytes;
        match &mut a.shadow {
            Some(shadow) => shadow.grow(a.size),
            None if undefined => {
                let mut shadow = Shadow::undefined(a.size);
                shadow.set_defined(0, a.size - bytes, true);
                a.shadow = Some(Box::new(shadow));
            }
            None => {}
        }
        self.live += bytes;
        self.peak = self.peak.max(self.live);
        true
    }

    /// Frees the allocation that begins at `address`; false where none does.
    pub fn free(&mut self, address: u64) -> bool {
        match self.allocations.binary_search_by_key(&address, |a| a.base) {
            Ok(at) => {
                let gone = self.allocations.remove(at);
                self.live -= if gone.module { 0 } else { gone.size };
                true
            }
            Err(_) => false,
        }
    }

    /// Index of the allocation that holds all of `address .. address + bytes`.
    pub fn find(&self, address: u64, bytes: u64) -> Option<usize> {
        let at = self.allocations.partition_point(|a| a.base <= address).checked_sub(1)?;
        let a = &self.allocations[at];
        let offset = address - a.base;
        (offset < a.size && bytes <= a.size - offset).then_some(at)
    }

    /// Host pointer to `address .. address + bytes`.
    pub fn host(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        let a = &self.allocations[self.find(address, bytes)?];
        // SAFETY: `find` checked that the offset lies in the allocation.
        Some(unsafe { a.host.add((address - a.base) as usize) })
    }

    /// Says in words where `address` lies relative to the allocations.
    pub fn describe(&self, address: u64) -> String {
        let at = self.allocations.partition_point(|a| a.base <= address);
        match at.checked_sub(1).map(|at| &self.allocations[at]) {
            Some(a) if address < a.base + a.size => {
                format!("{} bytes before the end of an allocation of {} bytes", a.base + a.size - address, a.size)
            }
            Some(a) if address - a.base - a.size < 1 << 20 => {
                format!("{} bytes past the end of an allocation of {} bytes", address - a.base - a.size, a.size)
            }
            _ => match self.allocations.get(at) {
                Some(a) if a.base - address < 1 << 20 => {
                    format!("{} bytes before an allocation of {} bytes", a.base - address, a.size)
                }
                _ => "in no allocation".into(),
            },
        }
    }

    /// Marks bytes written by the host.
    pub fn define(&mut self, address: u64, bytes: u64, defined: bool) {
        if let Some(at) = self.find(address, bytes) {
            let a = &mut self.allocations[at];
            if let Some(shadow) = &mut a.shadow {
                shadow.set_defined(address - a.base, bytes, defined);
            }
        }
    }

    /// First byte of the range that was never written, as an offset; none where all were, or nothing is tracked.
    pub fn undefined_in(&self, address: u64, bytes: u64) -> Option<u64> {
        let a = &self.allocations[self.find(address, bytes)?];
        a.shadow.as_ref()?.first_undefined(address - a.base, bytes)
    }

    /// Forgets what the checkers know: after an unchecked launch everything counts as written.
    pub fn forget_shadows(&mut self) {
        self.allocations.iter_mut().for_each(|a| a.shadow = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_gaps_and_are_never_reused() {
        let mut m = Memory::new(1 << 40, 1 << 20);
        let a = m.allocate(100, false, false).unwrap();
        let b = m.allocate(100, false, false).unwrap();
        assert!(b >= a + 100 + GUARD && a.is_multiple_of(ALIGN) && b.is_multiple_of(ALIGN));
        assert!(m.find(a + 96, 4).is_some() && m.find(a + 97, 4).is_none() && m.find(a - 1, 1).is_none());
        assert!(m.free(a) && !m.free(a) && !m.free(b + 1));
        assert!(m.allocate(50, false, false).unwrap() > b);
        assert_eq!((m.live, m.peak), (150, 200));
        assert!(m.allocate(1 << 20, false, false).is_none());
    }
}
