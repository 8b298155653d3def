//! Running statistics: `running ← running + momentum·(batch's − running)`; variances become unbiased, as PyTorch has it.

use bytemuck::{Pod, Zeroable};

use super::{BufferId, Parameters};
use crate::device::{Backend, Cuda, LaunchConfig, THREADS};
use crate::error::Result;
use crate::tensor::Tensor;

/// A running statistic that is due.
pub(crate) struct RunningUpdate {
    pub buffer: BufferId,
    /// `[2, groups]` of the batch: means, biased variances.
    pub statistics: Tensor,
    /// Elements behind each, for the unbiased variance.
    pub count: usize,
    pub momentum: f32,
}

impl RunningUpdate {
    /// What makes the variance unbiased: `count/(count − 1)`.
    fn unbiased(&self) -> f32 {
        self.count as f32 / self.count.saturating_sub(1).max(1) as f32
    }

    #[cfg(feature = "train")]
    /// What other ranks are told of it: the count, then the statistics.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok([&(self.count as u64).to_le_bytes(), bytemuck::cast_slice(&self.statistics.to_vec()?)].concat())
    }
}

/// Updates of one launch: they fit the 4 KiB that a kernel's parameters may have.
const MOST: usize = 64;

/// The twin of `Running` in `kernels/elementwise.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    running: u64,
    statistics: u64,
    groups: u32,
    unbiased: f32,
    momentum: f32,
    unused: u32,
}

impl Parameters {
    /// Applies the updates, in their order.
    pub(crate) fn update_running(&mut self, updates: &[RunningUpdate]) -> Result<()> {
        self.update_running_if(updates, None)
    }

    /// The same, but a CUDA device leaves all as it is unless the number of `guard` is finite.
    pub(crate) fn update_running_if(&mut self, updates: &[RunningUpdate], guard: Option<&Tensor>) -> Result<()> {
        let device = self.device().clone();
        match device.backend() {
            Backend::Cpu { .. } => updates.iter().for_each(|update| self.update_on_cpu(update)),
            Backend::Cuda(cuda) => {
                let mut rest = updates;
                while !rest.is_empty() {
                    // Updates of one buffer must follow each other.
                    let repeats = |i: &usize| rest[..*i].iter().any(|earlier| earlier.buffer == rest[*i].buffer);
                    let (now, later) =
                        rest.split_at((1..rest.len().min(MOST)).find(repeats).unwrap_or(rest.len().min(MOST)));
                    self.update_on_cuda(cuda, now, guard)?;
                    rest = later;
                }
            }
            Backend::Plan { .. } => {}
        }
        updates.iter().for_each(|update| self.count_update(update.buffer));
        Ok(())
    }

    #[cfg(feature = "train")]
    /// Applies what another rank has told of the same updates, one behind the other (see [`RunningUpdate::to_bytes`]), which take
    /// the place of the own.
    pub(crate) fn update_running_as_told(&mut self, updates: &mut [RunningUpdate], told: &[u8]) -> Result<()> {
        let mut rest = told;
        for update in updates.iter_mut() {
            let (count, values) = rest.split_at(size_of::<u64>());
            let (values, later) = values.split_at(size_of::<f32>() * update.statistics.len());
            update.count = u64::from_le_bytes(count.try_into().unwrap_or_default()) as usize;
            update.statistics.write(&bytemuck::pod_collect_to_vec::<u8, f32>(values))?;
            rest = later;
        }
        self.update_running(updates)
    }

    fn update_on_cpu(&mut self, update: &RunningUpdate) {
        let running = self.buffer_mut(update.buffer);
        let groups = running.channels();
        for (i, (running, &new)) in running.data_mut().iter_mut().zip(update.statistics.data()).enumerate() {
            let new = if i < groups { new } else { new * update.unbiased() };
            *running += update.momentum * (new - *running);
        }
    }

    /// One launch; no buffer occurs twice.
    fn update_on_cuda(&mut self, cuda: &Cuda, updates: &[RunningUpdate], guard: Option<&Tensor>) -> Result<()> {
        let mut entries = [Entry::default(); MOST];
        for (entry, update) in entries.iter_mut().zip(updates) {
            let running = self.buffer_mut(update.buffer);
            *entry = Entry {
                running: running.address(),
                statistics: update.statistics.address(),
                groups: running.channels() as u32,
                unbiased: update.unbiased(),
                momentum: update.momentum,
                unused: 0,
            };
        }
        let kernel = cuda.kernel("update_running").value(entries).optional(guard);
        kernel.launch(LaunchConfig::new(updates.len(), THREADS))
    }
}

#[cfg(test)]
mod tests {
    use super::RunningUpdate;
    use crate::memory::Role;
    use crate::nn::Parameters;
    use crate::ops::testing::{assert_clean, every_device};
    use crate::tensor::Tensor;

    #[test]
    fn updates_follow_their_order() {
        for device in every_device() {
            let mut parameters = Parameters::new(&device);
            // More than one launch takes, and the first of them once more.
            let ids: Vec<_> =
                (0..70).map(|i| parameters.add_buffer(format!("{i}"), &[2, 3], |v| v.fill(1.0)).unwrap()).collect();
            let update = |i: usize, value: f32| RunningUpdate {
                buffer: ids[i],
                statistics: Tensor::from_slice(&device, &[2, 3], Role::Transient, &[value; 6]).unwrap(),
                count: 3,
                momentum: 0.5,
            };
            let updates: Vec<_> = (0..70).map(|i| update(i, i as f32)).chain([update(0, 2.0)]).collect();
            parameters.update_running(&updates).unwrap();
            let values = |i: usize| parameters.buffer(ids[i]).to_vec().unwrap();
            // Means go half of the way from 1 to i, variances to 1.5·i; the first goes on from a half, to 2 and 3.
            assert_eq!(values(7), [4.0, 4.0, 4.0, 5.75, 5.75, 5.75]);
            assert_eq!(values(69), [35.0, 35.0, 35.0, 52.25, 52.25, 52.25]);
            assert_eq!(values(0), [1.25, 1.25, 1.25, 1.75, 1.75, 1.75]);
            let counts: Vec<u64> = parameters.buffers().map(|(_, _, updates)| updates).collect();
            assert_eq!((counts[0], counts[1]), (2, 1));
            assert_clean();
        }
    }
}
