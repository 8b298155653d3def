//! Where cases come from: held in memory, or read from their files each time, for data sets that are larger than memory.

use std::borrow::Cow;

use crate::data::{self, Dataset};
use crate::error::{Error, Result};
use crate::task::{PreparedCase, Task};

/// A source of prepared cases that several threads may ask at once.
pub trait CaseSource: Sync {
    /// Number of cases.
    fn len(&self) -> usize;

    /// True if there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Case `index`, read and prepared if it is not held.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    fn case(&self, index: usize) -> Result<Cow<'_, PreparedCase>>;

    /// The most bytes that image and labels of one case take in a batch.
    fn case_bytes(&self) -> u64;

    /// The most bytes that reading one case takes beside those: none if all are held.
    fn reading_bytes(&self) -> u64;
}

/// Cases that are held.
impl<T: AsRef<[PreparedCase]> + Sync> CaseSource for T {
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    fn case(&self, index: usize) -> Result<Cow<'_, PreparedCase>> {
        let held = self.as_ref();
        held.get(index).map(Cow::Borrowed).ok_or_else(|| missing(index, held.len()))
    }

    fn case_bytes(&self) -> u64 {
        let bytes = |case: &PreparedCase| 4 * (case.volume.voxels.len() + case.volume.len()) as u64;
        self.as_ref().iter().map(bytes).max().unwrap_or(0)
    }

    fn reading_bytes(&self) -> u64 {
        0
    }
}

fn missing(index: usize, len: usize) -> Error {
    Error::Model(format!("case {index} of {len} was asked for"))
}

/// Cases that stay on disk.
pub struct OnDisk {
    dataset: Dataset,
    cases: Vec<data::Case>,
    task: Task,
    shape: Option<[usize; 3]>,
    largest: u64,
}

impl OnDisk {
    /// `cases` of `dataset`, prepared for `task` on a grid of `shape` (each on its own without one). `largest` is the most
    /// voxels that one of them has, before or after preparation.
    pub fn new(dataset: &Dataset, cases: &[data::Case], task: &Task, shape: Option<[usize; 3]>, largest: u64) -> Self {
        Self { dataset: dataset.clone(), cases: cases.to_vec(), task: task.clone(), shape, largest }
    }

    fn channels(&self) -> u64 {
        self.task.preprocessing.channels.len() as u64
    }
}

impl CaseSource for OnDisk {
    fn len(&self) -> usize {
        self.cases.len()
    }

    fn case(&self, index: usize) -> Result<Cow<'_, PreparedCase>> {
        let case = self.cases.get(index).ok_or_else(|| missing(index, self.cases.len()))?;
        let scan = self.dataset.read(case, self.task.preprocessing.axes)?;
        self.task.prepare(scan, self.shape).map(Cow::Owned)
    }

    fn case_bytes(&self) -> u64 {
        4 * self.largest * (self.channels() + 1)
    }

    fn reading_bytes(&self) -> u64 {
        reading_bytes(self.largest, self.channels())
    }
}

/// What reading a case of so many voxels and channels takes: as stored and as prepared, each for a moment in two copies; labels
/// and border beside them.
pub fn reading_bytes(voxels: u64, channels: u64) -> u64 {
    voxels.saturating_mul(4 * 3 * channels + 8)
}
