//! Moments of channels of which only pieces exist, put together in f64 (Chan, Golub, LeVeque 1983).

use crate::device::{Backend, Device, LaunchConfig};
use crate::error::Result;
use crate::memory::Role;
use crate::ops::workspace;
use crate::tensor::{DType, Tensor};

/// Means and biased variances of the channels of all pieces so far.
pub(crate) struct Merged {
    /// `[2, C]` in f64: means, squares about them.
    totals: Tensor,
    /// `[2, C]`
    moments: Tensor,
    count: f64,
}

impl Merged {
    /// Of no piece yet.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(device: &Device, channels: usize) -> Result<Self> {
        let moments = Tensor::empty(device, &[2, channels], DType::F32, Role::Transient)?;
        Ok(Self { totals: workspace(device, 4 * channels)?, moments, count: 0.0 })
    }

    /// Takes in a piece of `count` elements a channel with the moments `own` `[2, C]`.
    ///
    /// # Errors
    /// What the device's driver says.
    pub(crate) fn add(&mut self, own: &Tensor, count: usize) -> Result<()> {
        let (channels, before, count) = (own.channels(), self.count, count as f64);
        self.count += count;
        match own.device().backend() {
            Backend::Cpu { .. } => {
                let totals: &mut [f64] = bytemuck::cast_slice_mut(self.totals.data_mut());
                let (means, squares) = totals.split_at_mut(channels);
                let (own_means, own_variances) = own.data().split_at(channels);
                let (out_means, out_variances) = self.moments.data_mut().split_at_mut(channels);
                for c in 0..channels {
                    let former = if before > 0.0 { [means[c], squares[c]] } else { [0.0; 2] };
                    let distance = f64::from(own_means[c]) - former[0];
                    means[c] = former[0] + distance * count / self.count;
                    squares[c] = former[1]
                        + (count * f64::from(own_variances[c]) + distance * distance * before * count / self.count);
                    out_means[c] = means[c] as f32;
                    out_variances[c] = (squares[c] / self.count) as f32;
                }
            }
            Backend::Cuda(cuda) => cuda
                .kernel("moments_merge")
                .output(&mut self.totals)
                .input(own)
                .value(channels as u32)
                .value(before)
                .value(count)
                .output(&mut self.moments)
                .launch(LaunchConfig::cover(channels))?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Means and biased variances `[2, C]`.
    pub(crate) fn moments(self) -> Tensor {
        self.moments
    }
}
