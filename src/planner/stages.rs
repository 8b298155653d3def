//! Inference as a repeatable step, as [`crate::train::rehearsal::Stage`] is for training.

use crate::device::Device;
use crate::error::Result;
use crate::infer::dense;
use crate::memory::{Phase, Role};
use crate::models::{Network, NetworkConfig};
use crate::nn::Parameters;
use crate::rng::Rng;
use crate::tensor::{DType, Tensor};
use crate::train::rehearsal::Sizes;

/// A fresh network about to segment one made-up volume.
pub(super) struct Inference {
    parameters: Parameters,
    network: Network,
    volume: Tensor,
    chunk: usize,
}

impl Inference {
    /// Network and volume on `device` (which may be a plan); `sizes.points` are decoded at once.
    ///
    /// # Errors
    /// Sizes that the network does not admit, or no memory.
    pub fn new(device: &Device, config: &NetworkConfig, sizes: Sizes) -> Result<Self> {
        let mut parameters = Parameters::new(device);
        let network = Network::new(config, &mut parameters, &mut Rng::new(0))?;
        let [d, h, w] = sizes.volume;
        let shape = [1, d, h, w, config.image_channels()];
        let mut rng = Rng::new(1);
        let mut volume = device.in_phase(Phase::Data, || Tensor::empty(device, &shape, DType::F32, Role::Data))?;
        if !device.is_plan() {
            volume.data_mut().fill_with(|| rng.uniform() * 2.0 - 1.0);
        }
        Ok(Self { parameters, network, volume, chunk: sizes.points })
    }

    /// Trainable scalars.
    pub fn parameters(&self) -> usize {
        self.parameters.count()
    }

    /// A probability for every voxel.
    ///
    /// # Errors
    /// As [`Inference::new`].
    pub fn step(&mut self) -> Result<()> {
        dense::predict(&self.network, &self.parameters, &self.volume, self.chunk).map(drop)
    }
}
