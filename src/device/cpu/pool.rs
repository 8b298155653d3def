//! The CPU's threads.
//!
//! Work is always cut into pieces by the *problem*, never by the number of threads, and partial sums are combined in the
//! order of the pieces. So one thread and many give the same bits.

use std::marker::PhantomData;

use rayon::prelude::*;

use super::SimdLevel;
use crate::error::{Error, Result};

/// Threads and instruction set of one CPU device.
pub struct Pool {
    threads: rayon::ThreadPool,
    simd: SimdLevel,
}

impl Pool {
    /// A pool of `threads` threads (0: one for each core) at the best instruction set.
    ///
    /// # Errors
    /// [`Error::Usage`] if the operating system refuses to start the threads.
    pub fn start(threads: usize) -> Result<Self> {
        Self::start_with_simd(threads, SimdLevel::detect())
    }

    /// A pool at a given instruction set.
    ///
    /// # Errors
    /// [`Error::Usage`] if the operating system refuses to start the threads.
    pub fn start_with_simd(threads: usize, simd: SimdLevel) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("ossnet-{i}")).build();
        match pool {
            Ok(threads) => Ok(Self { threads, simd }),
            Err(error) => Err(Error::Usage(format!("cannot start {threads} threads ({error}); lower --threads"))),
        }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Instruction set of the kernels.
    pub fn simd(&self) -> SimdLevel {
        self.simd
    }

    /// Runs `work(piece)` for each piece in `0..pieces`, in parallel.
    pub fn for_each(&self, pieces: usize, work: impl Fn(usize) + Sync + Send) {
        match pieces {
            0 => {}
            1 => work(0),
            _ => self.run(pieces, &work),
        }
    }

    /// Compiled once: rayon's machinery is some ten kilobytes for each closure, and a piece of work is far longer than a call.
    fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync + Send)) {
        self.threads.install(|| (0..pieces).into_par_iter().for_each(work));
    }

    /// Runs `work(piece, thread)` for each piece in `0..pieces`; `thread < self.threads()` names scratch that no other
    /// running piece uses.
    pub fn for_each_with_thread(&self, pieces: usize, work: impl Fn(usize, usize) + Sync + Send) {
        self.run(pieces, &|piece| work(piece, rayon::current_thread_index().unwrap_or(0)));
    }

    /// The results of `work(piece)` in the order of the pieces.
    pub fn map<T: Send>(&self, pieces: usize, work: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
        let mut results: Vec<Option<T>> = std::iter::repeat_with(|| None).take(pieces).collect();
        let places = SharedMut::new(&mut results);
        self.run(pieces, &|piece| {
            // SAFETY: each piece has a place of its own.
            let place = unsafe { places.slice(piece, 1) };
            place[0] = Some(work(piece));
        });
        results.into_iter().flatten().collect()
    }
}

/// A mutable slice that several pieces of one parallel loop write at disjoint places.
#[derive(Clone, Copy)]
pub struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from a unique borrow; `slice` leaves disjointness to its caller.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Shares `slice` for the duration of its borrow.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// Elements in the whole slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the elements `start..start + len` begin, for pieces whose elements interleave (columns of a matrix), which
    /// no slices can express.
    ///
    /// # Panics
    /// If the range lies outside the slice.
    pub fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start <= self.len && len <= self.len - start, "piece {start}+{len} of {}", self.len);
        self.start.wrapping_add(start)
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// No two live slices obtained from the same `SharedMut` may overlap.
    ///
    /// # Panics
    /// If the range lies outside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "piece {start}+{len} of {}", self.len);
        // SAFETY: inside the borrowed slice; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
