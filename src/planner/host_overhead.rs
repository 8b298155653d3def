//! What a process needs beside the device's ledger: host memory for data, and the overhead of the machinery.
//!
//! Host bytes follow from what the code keeps: `tests/heap/host_memory.rs` counts those of real cases.
//! The overhead is measured, not derived: `docs/memory.md` shows how.

use super::workload::Workload;
use crate::device::Target;
use crate::error::{Error, Result};
use crate::models::Supervision;
use crate::train::dry_run::StepKind;

/// The program, its libraries and its stacks: 8 MiB before the first step; 12 to 19 MiB were measured with a step's code, log
/// and bookkeeping. Rounded up: the kernel counts resident pages in batches.
const PROGRAM: u64 = 24 << 20;

/// The text of all CUDA kernels, unpacked when the first is loaded (`device/cuda/modules.rs`, where a test holds it).
pub(crate) const KERNELS: u64 = 15 << 20;

/// What a thread holds beside the GEMM crate's slab: its stack and its share of the allocator. With a cache of 2 MiB,
/// 2.8 to 3.6 MiB a thread were measured in all, from 1 to 16 threads.
const A_THREAD: u64 = 7 << 18;

/// Bytes of one thread: the GEMM crate packs its operands in a slab of the second-level cache's size, kept for the
/// thread's life.
fn a_thread() -> u64 {
    gemm_common::cache::CACHE_INFO[1].cache_bytes as u64 + A_THREAD
}

/// What a CUDA context and its modules take of a device before the first buffer. Assumed, not measured: it depends on the
/// driver and the GPU (`ossnet devices` shows what is free).
const CONTEXT: u64 = 512 << 20;

/// What NCCL's communicator takes of a device: buffers of its channels. Assumed, not measured: it depends on NCCL's version and on
/// how many links it uses.
const COMMUNICATOR: u64 = 512 << 20;

/// Positions of voxels near a border, of which training draws more points: four bytes each, of up to three quarters of the
/// voxels. It depends on the labels: brains in volumes of 64×80×64 have 0.56 to 0.66, larger volumes and tumours far less.
const BORDER_BYTES_A_VOXEL: u64 = 3;

/// Bytes beside the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOverhead {
    /// Volumes and labels of the cases in memory, on the host.
    pub cases: u64,
    /// The batch on its way to the device: its arrays and what is changed for them, page-locked memory for CUDA.
    pub staging: u64,
    /// Results on the host: probabilities and labels.
    pub results: u64,
    /// Program, libraries, stacks and the slabs of matrix products; on CUDA the context, on the device.
    pub overhead: u64,
    /// The part of it that NCCL's communicator takes of the device.
    pub communicator: u64,
}

impl HostOverhead {
    /// What `workload` needs on `machine` with one batch of cases in memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bytes do not fit 64 bits.
    pub fn of(workload: &Workload, target: Target) -> Result<Self> {
        let too_large = || Error::shape("host memory", format!("{:?} is too large", workload.sizes.volume));
        let mut aside = Self::data(workload).ok_or_else(too_large)?;
        let packed = match (target, workload.sizes.step) {
            (Target::Cuda(_), StepKind::Train) => Self::packed(workload).ok_or_else(too_large)?,
            _ => 0,
        };
        let staging = aside.staging.checked_add(packed).and_then(|bytes| bytes.checked_add(target.staging_bytes()));
        aside.staging = staging.ok_or_else(too_large)?;
        aside.overhead = match target {
            Target::Cpu { threads, .. } => PROGRAM + a_thread().saturating_mul(threads as u64),
            Target::Cuda(_) => PROGRAM + KERNELS + CONTEXT,
        };
        Ok(aside)
    }

    /// The same for one of several processes with a device each.
    #[must_use]
    pub fn with_communicator(self, target: Target) -> Self {
        match target {
            Target::Cpu { .. } => self,
            Target::Cuda(_) => Self { overhead: self.overhead + COMMUNICATOR, communicator: COMMUNICATOR, ..self },
        }
    }

    /// Bytes of the batch that is on its way to a CUDA device: in page-locked memory, classes as bytes. `None` if they do not fit
    /// 64 bits.
    fn packed(workload: &Workload) -> Option<u64> {
        let sizes = workload.sizes;
        let voxels = sizes.volume.iter().try_fold(1u64, |product, &side| product.checked_mul(side as u64))?;
        let volume = voxels.checked_mul(4 * workload.network.image_channels() as u64)?;
        let (points, classes) = match workload.network.supervision() {
            Supervision::Points { label_volumes, .. } => (sizes.points as u64, label_volumes),
            _ => (0, true),
        };
        let a_case =
            volume.checked_add(if classes { voxels } else { 0 })?.checked_add(points.checked_mul(3 * 4 + 1)?)?;
        a_case.checked_mul(sizes.batch as u64)
    }

    /// Host bytes of data; `None` if they do not fit 64 bits.
    fn data(workload: &Workload) -> Option<Self> {
        let sizes = workload.sizes;
        let (channels, classes) = (workload.network.image_channels() as u64, workload.network.classes() as u64);
        let (batch, points) = (sizes.batch as u64, sizes.points as u64);
        let voxels = sizes.volume.iter().try_fold(1u64, |product, &side| product.checked_mul(side as u64))?;
        let floats = voxels.checked_mul(channels)?.checked_mul(4)?;
        // Of every case: the volume, its first channel as read, its labels on the network's grid and as read.
        let labelled = floats.checked_add(voxels.checked_mul(4 + 2 + BORDER_BYTES_A_VOXEL)?)?;
        let supervision = workload.network.supervision();
        let aside = match sizes.step {
            StepKind::Train => {
                // All volumes in a row, and all labels that the network learns from.
                let dense = match supervision {
                    Supervision::Points { label_volumes: false, .. } => 0,
                    _ => voxels.checked_mul(4)?,
                };
                let answers = if workload.has_points() { points.checked_mul(4 * 4)? } else { 0 };
                let all = floats.checked_add(dense)?.checked_add(answers)?.checked_mul(batch)?;
                // Beside them the case that is changed on its way there: its volume, then its labels and, where points are drawn,
                // border positions. Slices of a 2D network come from as many cases, which are all changed first.
                let borders = if supervision.at_points() { BORDER_BYTES_A_VOXEL } else { 0 };
                let changed = match supervision {
                    Supervision::Slices { .. } => floats.checked_add(voxels)?.checked_mul(batch)?,
                    _ => floats.max(voxels.checked_mul(1 + borders)?),
                };
                let staging = all.checked_add(changed)?;
                Self { cases: labelled.checked_mul(batch)?, staging, ..Self::default() }
            }
            step => {
                // Classes on the network's grid and labels on the scan's; a dense answer comes as probabilities.
                let labels = voxels.checked_mul(2)?;
                let results = match supervision.at_points() {
                    true => labels,
                    false => voxels.checked_mul(classes)?.checked_mul(4)?.checked_add(labels)?,
                };
                Self {
                    cases: if step == StepKind::Evaluate { labelled } else { floats },
                    staging: floats,
                    results,
                    ..Self::default()
                }
            }
        };
        aside.cases.checked_add(aside.staging)?.checked_add(aside.results)?;
        Some(aside)
    }

    /// The part of the overhead that lies on the host: program, stacks, packed products.
    pub fn machinery(&self, target: Target) -> u64 {
        self.overhead.saturating_sub(self.on_device(target))
    }

    /// All bytes on the host: data and machinery.
    pub fn all_host(&self, target: Target) -> u64 {
        self.host().saturating_add(self.machinery(target))
    }

    /// The part of the overhead that lies on the device itself.
    pub fn on_device(&self, target: Target) -> u64 {
        match target {
            Target::Cpu { .. } => 0,
            Target::Cuda(_) => CONTEXT + self.communicator,
        }
    }

    /// Host bytes of data.
    pub fn host(&self) -> u64 {
        self.cases + self.staging + self.results
    }
}
