//! What the checkers know of an allocation: which bytes were written, which are forbidden, and who touched each word.

use crate::check::race::Cell;

/// Words of 4 bytes in one page of access records.
const PAGE: usize = 256;

/// A bit a byte.
#[derive(Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// All clear, for `bytes` bytes. Untouched pages of a large map cost nothing.
    pub fn new(bytes: u64) -> Bits {
        Bits(vec![0; bytes.div_ceil(64) as usize])
    }

    /// Room for `bytes` bits; new ones are clear.
    fn grow(&mut self, bytes: u64) {
        self.0.resize(bytes.div_ceil(64) as usize, 0);
    }

    /// Sets or clears `bytes` bits from `at`.
    pub fn set(&mut self, at: u64, bytes: u64, value: bool) {
        let mut k = at;
        while k < at + bytes {
            let (word, bit) = ((k / 64) as usize, k % 64);
            let count = (64 - bit).min(at + bytes - k);
            let mask = (u64::MAX >> (64 - count)) << bit;
            if value {
                self.0[word] |= mask
            } else {
                self.0[word] &= !mask
            }
            k += count;
        }
    }

    /// First offset in the range whose bit is `value`.
    pub fn first(&self, at: u64, bytes: u64, value: bool) -> Option<u64> {
        let mut k = at;
        while k < at + bytes {
            let (word, bit) = ((k / 64) as usize, k % 64);
            let count = (64 - bit).min(at + bytes - k);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let hits = if value { self.0[word] } else { !self.0[word] } & mask;
            if hits != 0 {
                return Some(k / 64 * 64 + u64::from(hits.trailing_zeros()));
            }
            k += count;
        }
        None
    }

    /// Clears all.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// The checkers' view of one allocation.
pub struct Shadow {
    defined: Bits,
    forbidden: Option<Bits>,
    size: u64,
    pages: Vec<Option<Box<[Cell; PAGE]>>>,
}

impl Shadow {
    /// Nothing is written yet.
    pub fn undefined(size: u64) -> Shadow {
        let pages = std::iter::repeat_with(|| None).take(size.div_ceil(4 * PAGE as u64) as usize).collect();
        Shadow { defined: Bits::new(size), forbidden: None, size, pages }
    }

    /// Everything counts as written.
    pub fn defined(size: u64) -> Shadow {
        let mut shadow = Shadow::undefined(size);
        shadow.defined.set(0, size, true);
        shadow
    }

    /// The allocation has grown to `size` bytes; nobody has written the new ones.
    pub fn grow(&mut self, size: u64) {
        self.size = size;
        self.defined.grow(size);
        self.forbidden.iter_mut().for_each(|bits| bits.grow(size));
        self.pages.resize_with(size.div_ceil(4 * PAGE as u64) as usize, || None);
    }

    /// Marks bytes as written or not.
    pub fn set_defined(&mut self, at: u64, bytes: u64, value: bool) {
        self.defined.set(at, bytes, value);
    }

    /// First byte of the range never written.
    pub fn first_undefined(&self, at: u64, bytes: u64) -> Option<u64> {
        self.defined.first(at, bytes, false)
    }

    /// Forbids or allows bytes: red zones inside an arena.
    pub fn set_forbidden(&mut self, at: u64, bytes: u64, value: bool) {
        self.forbidden.get_or_insert_with(|| Bits::new(self.size)).set(at, bytes, value);
    }

    /// First forbidden byte of the range.
    pub fn first_forbidden(&self, at: u64, bytes: u64) -> Option<u64> {
        self.forbidden.as_ref()?.first(at, bytes, true)
    }

    /// The access record of a word, where anything was recorded near it.
    #[inline(always)]
    pub fn peek(&self, word: u64) -> Option<&Cell> {
        self.pages[word as usize / PAGE].as_ref().map(|page| &page[word as usize % PAGE])
    }

    /// The access record of the 4-byte word at offset `4 * word`.
    #[inline(always)]
    pub fn cell(&mut self, word: u64) -> &mut Cell {
        let page = self.pages[word as usize / PAGE].get_or_insert_with(|| Box::new([Cell::default(); PAGE]));
        &mut page[word as usize % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_over_word_boundaries() {
        let mut b = Bits::new(200);
        b.set(60, 10, true);
        assert_eq!(b.first(0, 200, true), Some(60));
        assert_eq!(b.first(60, 10, false), None);
        assert_eq!(b.first(60, 11, false), Some(70));
        b.set(64, 1, false);
        assert_eq!(b.first(60, 10, false), Some(64));
    }
}
