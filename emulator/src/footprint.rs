//! Which bytes of global memory a launch touched, each counted once: what a cache that forgets nothing would move.

use std::collections::HashMap;

/// Bytes that one word of a page stands for.
const WORD: u64 = u64::BITS as u64;
/// Bytes of a page.
const PAGE: u64 = 64 * WORD;

/// A set of addresses, a bit a byte, by pages.
#[derive(Default)]
pub struct Footprint {
    places: HashMap<u64, usize>,
    pages: Vec<[u64; 64]>,
    /// Number and place of the page last touched.
    last: Option<(u64, usize)>,
}

impl Footprint {
    fn page(&mut self, number: u64) -> &mut [u64; 64] {
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => {
                let pages = &mut self.pages;
                *self.places.entry(number).or_insert_with(|| {
                    pages.push([0; 64]);
                    pages.len() - 1
                })
            }
        };
        self.last = Some((number, place));
        &mut self.pages[place]
    }

    /// Adds `bytes` bytes (at most 64) from `address` on.
    pub fn add(&mut self, address: u64, bytes: u64) {
        let (word, first) = (address / WORD, address % WORD);
        let here = bytes.min(WORD - first);
        let mask = (u64::MAX >> (WORD - here)) << first;
        self.page(address / PAGE)[(word % 64) as usize] |= mask;
        if here < bytes {
            self.add(address + here, bytes - here);
        }
    }

    /// Adds what another worker of the launch touched.
    pub fn join(&mut self, other: &Footprint) {
        for (&number, &place) in &other.places {
            let theirs = other.pages[place];
            self.page(number).iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine |= theirs);
        }
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.pages.iter().flatten().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_once() {
        let mut footprint = Footprint::default();
        for (address, bytes) in [(4096, 16), (4104, 16), (8190, 4), (4096, 4), (63, 2)] {
            footprint.add(address, bytes);
        }
        assert_eq!(footprint.bytes(), 24 + 4 + 2);
        let mut other = Footprint::default();
        other.add(4090, 10);
        footprint.join(&other);
        assert_eq!(footprint.bytes(), 30 + 6);
    }
}
