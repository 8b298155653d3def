//! Ranks that are threads of one process, for tests: the same exchanges as between processes, without a launcher.

use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex};

use super::Collective;
use crate::device::Buffer;
use crate::error::Result;

/// What ranks exchange: each writes its own bytes, waits, reads all, and waits again.
struct Shared {
    barrier: Barrier,
    bytes: Mutex<Vec<Vec<u8>>>,
}

/// One of them.
struct Thread {
    rank: usize,
    shared: Arc<Shared>,
}

impl Thread {
    fn exchange(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.shared.bytes.lock().unwrap()[self.rank] = own.to_vec();
        self.shared.barrier.wait();
        let all = self.shared.bytes.lock().unwrap().clone();
        self.shared.barrier.wait();
        assert!(all.iter().all(|bytes| bytes.len() == own.len()), "ranks exchange different lengths");
        all
    }
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.bytes.lock().unwrap().len()
    }

    /// From the last rank to the first: an order that nobody may rely on.
    fn all_reduce(&self, values: &mut Buffer) -> Result<()> {
        let values = values.as_mut_slice::<f32>();
        let all = self.exchange(bytemuck::cast_slice(values));
        values.fill(0.0);
        for bytes in all.iter().rev() {
            let others: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
            values.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
        Ok(())
    }

    fn all_gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        all.copy_from_slice(&self.exchange(own).concat());
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.exchange(&[]);
        Ok(())
    }

    fn finish(&self, _: bool) {}

    fn abort(&self, code: u8) -> ! {
        panic!("rank {} ends all with {code}", self.rank)
    }
}

/// Runs `work` on `size` ranks; what each returns, in their order.
pub(crate) fn run<T: Send>(size: usize, work: impl Fn(Rc<dyn Collective>) -> T + Sync) -> Vec<T> {
    let shared = Arc::new(Shared { barrier: Barrier::new(size), bytes: Mutex::new(vec![Vec::new(); size]) });
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..size)
            .map(|rank| {
                let (shared, work) = (shared.clone(), &work);
                scope.spawn(move || work(Rc::new(Thread { rank, shared })))
            })
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
