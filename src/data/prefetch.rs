//! Work that runs ahead of its consumer: reading, decompressing and augmenting on other threads while the network computes.
//!
//! Items come out in the order of their numbers whatever the threads do, and each is a function of its number alone, so
//! that results do not depend on how many threads there are or how fast they happen to be. At most a stated number of
//! items exists at any moment, those being made and the one in use among them: that number times an item's size is what the
//! caller enters in the ledger.
//!
//! ```
//! use ossnet::data::prefetch::{PrefetchLimits, ahead};
//!
//! let squares: Vec<u64> = ahead(0..5, PrefetchLimits { items: 3, threads: 2 }, |n| n * n, |queue| {
//!     std::iter::from_fn(|| queue.next()).collect()
//! });
//! assert_eq!(squares, [0, 1, 4, 9, 16]);
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How far the work may run ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchLimits {
    /// The most items that exist at once, the one in use included. Below 2 nothing runs ahead.
    pub items: usize,
    /// Threads that make items; with 0 the consumer makes them itself.
    pub threads: usize,
}

impl PrefetchLimits {
    /// As many items of `item` bytes as fit into `bytes`, but two at least, and no more than make sense for `threads`.
    pub fn within(bytes: u64, item: u64, threads: usize) -> Self {
        let fitting = bytes / item.max(1);
        Self { items: usize::try_from(fitting).unwrap_or(usize::MAX).clamp(2, threads.max(1) + 2), threads }
    }

    /// The most bytes that items of `item` bytes take.
    pub fn bytes(&self, item: u64) -> u64 {
        item.saturating_mul(self.items.max(1) as u64)
    }
}

/// The items, in order.
pub struct Queue<'a, T> {
    shared: &'a Shared<T>,
    make: &'a (dyn Fn(u64) -> T + Sync),
    next: u64,
    waited: Duration,
}

/// What threads and consumer share.
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    end: u64,
    items: u64,
    /// False if no thread could be started.
    staffed: bool,
}

struct State<T> {
    /// The next item to be made.
    unmade: u64,
    /// Items before this one exist no more.
    released: u64,
    ready: BTreeMap<u64, T>,
    /// No more items are wanted, or a thread panicked.
    stopped: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Makes items until there is nothing left to make.
    fn work(&self, make: &(dyn Fn(u64) -> T + Sync)) {
        loop {
            let mut state = self.lock();
            while !state.stopped && state.unmade < self.end && state.unmade >= state.released + self.items {
                state = self.wait(state);
            }
            if state.stopped || state.unmade >= self.end {
                return;
            }
            let number = state.unmade;
            state.unmade += 1;
            drop(state);
            // A panic must not leave the consumer waiting for this item: it hears of the end, and the scope of the panic.
            let guard = StopOnPanic(self);
            let item = make(number);
            std::mem::forget(guard);
            self.lock().ready.insert(number, item);
            self.changed.notify_all();
        }
    }
}

/// Stops everything when it is dropped.
struct StopOnPanic<'a, T>(&'a Shared<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl<T> Queue<'_, T> {
    /// The next item; `None` after the last. The former item counts as gone.
    #[allow(clippy::should_implement_trait)] // an iterator could not be asked how long it waited while it is used
    pub fn next(&mut self) -> Option<T> {
        if self.next >= self.shared.end {
            return None;
        }
        let number = self.next;
        let started = Instant::now();
        self.next += 1;
        let item = if self.shared.staffed { self.fetch(number) } else { Some((self.make)(number)) };
        self.waited += started.elapsed();
        item
    }

    fn fetch(&self, number: u64) -> Option<T> {
        let mut state = self.shared.lock();
        state.released = number;
        self.shared.changed.notify_all();
        loop {
            if let Some(item) = state.ready.remove(&number) {
                return Some(item);
            }
            if state.stopped {
                return None;
            }
            state = self.shared.wait(state);
        }
    }

    /// How long the consumer waited for items so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// Runs `consume` on a queue of the items `make(n)` for `n` of `numbers`, made ahead of their use. Work that is under way
/// when `consume` returns is finished and dropped.
///
/// # Panics
/// If `make` does.
pub fn ahead<T: Send, R>(
    numbers: Range<u64>,
    window: PrefetchLimits,
    make: impl Fn(u64) -> T + Sync,
    consume: impl FnOnce(&mut Queue<'_, T>) -> R,
) -> R {
    let mut shared = Shared {
        state: Mutex::new(State {
            unmade: numbers.start,
            released: numbers.start,
            ready: BTreeMap::new(),
            stopped: false,
        }),
        changed: Condvar::new(),
        end: numbers.end.max(numbers.start),
        items: window.items.max(1) as u64,
        staffed: window.threads > 0 && window.items > 1,
    };
    let inline = |shared: &Shared<T>| {
        let mut queue = Queue { shared, make: &make, next: numbers.start, waited: Duration::ZERO };
        consume(&mut queue)
    };
    if !shared.staffed {
        return inline(&shared);
    }
    // A system that refuses threads: found out before anything depends on them.
    let refused = std::thread::scope(|scope| Builder::new().spawn_scoped(scope, || ()).is_err());
    if refused {
        shared.staffed = false;
        return inline(&shared);
    }
    let shared = &shared;
    std::thread::scope(|scope| {
        let mut started = 0;
        for _ in 0..window.threads {
            started += usize::from(Builder::new().spawn_scoped(scope, || shared.work(&make)).is_ok());
        }
        if started == 0 {
            // Nobody would ever make an item.
            shared.stop();
        }
        // However it ends, the threads hear of it.
        let _stop = StopOnPanic(shared);
        inline(shared)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    #[test]
    fn items_come_in_order_whatever_the_threads_do() {
        for threads in [0, 1, 2, 5] {
            for items in [1, 2, 7] {
                let make = |n: u64| {
                    std::thread::sleep(Duration::from_micros(37 * (n * 7 % 11)));
                    n * 10
                };
                let taken: Vec<u64> = ahead(3..40, PrefetchLimits { items, threads }, make, |queue| {
                    std::iter::from_fn(|| queue.next()).collect()
                });
                assert_eq!(taken, (3..40).map(|n| n * 10).collect::<Vec<_>>(), "{threads} threads, {items} items");
            }
        }
    }

    /// Counts what exists: items being made, ready and in use.
    #[test]
    fn no_more_items_exist_than_stated() {
        static LIVE: AtomicI64 = AtomicI64::new(0);
        static MOST: AtomicI64 = AtomicI64::new(0);
        struct Item;
        impl Drop for Item {
            fn drop(&mut self) {
                LIVE.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let make = |_| {
            MOST.fetch_max(LIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Item
        };
        ahead(0..200, PrefetchLimits { items: 3, threads: 4 }, make, |queue| {
            loop {
                // The former item is dropped before the next is asked for.
                let Some(item) = queue.next() else { break };
                std::thread::sleep(Duration::from_micros(200));
                drop(item);
            }
        });
        let most = MOST.load(Ordering::SeqCst);
        assert!((2..=3).contains(&most), "{most} items at once");
        assert_eq!(LIVE.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_consumer_that_leaves_early_ends_the_work() {
        let made = AtomicU64::new(0);
        let first = ahead(
            0..1_000_000,
            PrefetchLimits { items: 4, threads: 2 },
            |n| {
                made.fetch_add(1, Ordering::SeqCst);
                n
            },
            |queue| queue.next(),
        );
        assert_eq!(first, Some(0));
        assert!(made.load(Ordering::SeqCst) <= 5, "it ran on");
    }

    #[test]
    fn a_panic_in_the_work_reaches_the_caller() {
        let result = std::panic::catch_unwind(|| {
            ahead(
                0..10,
                PrefetchLimits { items: 3, threads: 2 },
                |n| assert_ne!(n, 4),
                |queue| {
                    while queue.next().is_some() {}
                },
            );
        });
        assert!(result.is_err());
    }

    /// Work that takes as long as its consumer is done while the consumer is busy.
    #[test]
    fn the_consumer_hardly_waits() {
        let pause = || std::thread::sleep(Duration::from_millis(4));
        let waited = ahead(
            0..30,
            PrefetchLimits { items: 4, threads: 2 },
            |_| pause(),
            |queue| {
                while queue.next().is_some() {
                    pause();
                }
                queue.waited()
            },
        );
        // One after the other it would be 120 ms of waiting; the first item alone is 4 ms.
        assert!(waited < Duration::from_millis(80), "{waited:?}");
    }

    #[test]
    fn windows_fit_their_bytes() {
        let window = PrefetchLimits::within(100, 30, 4);
        assert_eq!((window.items, window.bytes(30)), (3, 90));
        assert_eq!(PrefetchLimits::within(10, 30, 4).items, 2, "less than two would not run ahead");
        assert_eq!(PrefetchLimits::within(u64::MAX, 1, 4).items, 6);
    }
}
