//! A step of work, and what it costs on a target.

use std::sync::Arc;

use super::host_overhead::HostOverhead;
use super::inference_step::InferenceStep;
use crate::device::cpu::SimdLevel;
use crate::device::{Device, Profile, Target, UNLIMITED};
use crate::error::{Error, Result};
use crate::models::{Architecture, Family, NetworkConfig, Recompute};
use crate::nn::Parameters;
use crate::rng::Rng;
use crate::train::dry_run::{self, StepKind, StepProfile, StepSizes, SyntheticStep};

/// A step that can be made again.
type Step = Box<dyn FnMut() -> Result<()>>;

/// Everything that the bytes of a step depend on, the device apart.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The network, made for volumes of `sizes.volume`.
    pub network: Arc<dyn Architecture>,
    /// What is done with how much; in inference the points are those that are decoded at once.
    pub sizes: StepSizes,
}

impl Workload {
    /// The network of this name at its published size, for volumes of `sizes.volume`.
    ///
    /// # Errors
    /// As [`NetworkConfig::official`].
    pub fn official(name: &str, sizes: StepSizes) -> Result<Self> {
        let network = Arc::new(NetworkConfig::official(name, Family::Brats)?);
        Ok(Self { network, sizes }.with_volume(sizes.volume))
    }

    /// The same work on images of so many channels, with so many outputs.
    pub fn with_data(&self, channels: usize, outputs: usize) -> Self {
        let adapted = self.network.for_data(channels, outputs, self.sizes.volume);
        Self { network: adapted.unwrap_or_else(|| self.network.clone()), ..self.clone() }
    }

    /// The same work on volumes of another shape.
    pub fn with_volume(&self, volume: [usize; 3]) -> Self {
        let sizes = StepSizes { volume, ..self.sizes };
        Self { sizes, ..self.clone() }.with_data(self.network.image_channels(), self.network.classes())
    }

    /// The same work with another number of points.
    pub fn with_points(&self, points: usize) -> Self {
        Self { sizes: StepSizes { points, ..self.sizes }, ..self.clone() }
    }

    /// The same work with another batch.
    pub fn with_batch(&self, batch: usize) -> Self {
        Self { sizes: StepSizes { batch, ..self.sizes }, ..self.clone() }
    }

    /// The same work at another level of recomputation.
    pub fn with_recompute(&self, recompute: Recompute) -> Self {
        Self { sizes: StepSizes { recompute, ..self.sizes }, ..self.clone() }
    }

    /// Levels of recomputation that differ for this step, the fastest first.
    pub fn levels(&self) -> Vec<Recompute> {
        match self.sizes.step {
            StepKind::Train => self.network.levels().to_vec(),
            StepKind::Evaluate | StepKind::Infer => vec![Recompute::default()],
        }
    }

    /// Trainable scalars of the network.
    ///
    /// # Errors
    /// An impossible network.
    pub fn parameters(&self) -> Result<usize> {
        let mut parameters = Parameters::new(&Device::plan(1, SimdLevel::Portable, UNLIMITED));
        self.network.build(&mut parameters, &mut Rng::new(0))?;
        Ok(parameters.count())
    }

    /// True if the network answers at points, so that their number matters.
    pub fn has_points(&self) -> bool {
        self.network.supervision().at_points()
    }

    /// Voxels of one batch item: of the volume, or of the slice that a 2D network sees.
    pub fn voxels(&self) -> u128 {
        let own = &self.sizes.volume[..if self.network.supervision().slice_axis().is_some() { 2 } else { 3 }];
        own.iter().map(|&side| side as u128).product()
    }

    /// Checks that the network admits the volume.
    ///
    /// # Errors
    /// [`Error::Usage`] that states the multiple, or [`Error::Model`] that states the smallest side.
    pub fn check(&self) -> Result<()> {
        let (volume, multiples) = (self.sizes.volume, self.network.multiples());
        match (0..3).find(|&axis| !volume[axis].is_multiple_of(multiples[axis])) {
            None => self.network.check(),
            Some(axis) => Err(Error::Usage(format!(
                "--volume: side {} must be a multiple of {} for {}; pad it",
                volume[axis],
                multiples[axis],
                self.network.title()
            ))),
        }
    }

    /// Takes `steps` steps of a fresh network on made-up data; reports the last.
    ///
    /// # Errors
    /// Sizes that the network does not admit, or no memory.
    pub fn dry_run(&self, device: &Device, steps: usize) -> Result<StepProfile> {
        let (parameters, step) = self.stage(device)?;
        dry_run::observe(device, parameters, steps, step)
    }

    /// Takes `steps` steps as [`Workload::dry_run`] does, after two others, and tells where their time went.
    ///
    /// # Errors
    /// As there, and what the driver says.
    pub fn profile(&self, device: &Device, steps: usize) -> Result<Profile> {
        let (_, mut step) = self.stage(device)?;
        (0..PLANNED_STEPS).try_for_each(|_| step())?;
        device.start_profile();
        for _ in 0..steps {
            step()?;
            device.read_profile()?;
        }
        device.take_profile()
    }

    /// Takes the steps of a plan without a log, until one leaves everything as it was; the bytes that they reserve.
    ///
    /// # Errors
    /// As [`Workload::dry_run`].
    pub(super) fn reserve(&self, device: &Device) -> Result<u64> {
        let (_, mut step) = self.stage(device)?;
        for _ in 0..PLANNED_STEPS {
            let before = device.unread_state();
            step()?;
            if before.is_some() && before == device.unread_state() {
                break;
            }
        }
        Ok(device.reserved())
    }

    /// A fresh network on made-up data: its trainable scalars, and its step.
    fn stage(&self, device: &Device) -> Result<(usize, Step)> {
        Ok(match self.sizes.step {
            StepKind::Train => {
                let mut stage = SyntheticStep::new(device, &*self.network, self.sizes)?;
                (stage.parameters(), Box::new(move || stage.step()))
            }
            StepKind::Evaluate | StepKind::Infer => {
                let mut stage = InferenceStep::new(device, &*self.network, self.sizes)?;
                (stage.parameters(), Box::new(move || stage.step()))
            }
        })
    }
}

/// Steps of a plan: the second is like all that follow.
pub(super) const PLANNED_STEPS: usize = 2;

/// The CPU of this machine with so many threads (0: one for each core), to plan for.
pub fn this_cpu(threads: usize) -> Target {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Target::Cpu { threads: if threads == 0 { cores } else { threads }, simd: SimdLevel::detect() }
}

/// What a step will cost.
pub struct Forecast {
    /// In the ledger.
    pub profile: StepProfile,
    /// Beside it.
    pub aside: HostOverhead,
}

/// What `workload` will cost on `machine`, whatever the budget.
///
/// # Errors
/// Sizes that the network does not admit, or that do not fit 64 bits.
pub fn forecast(workload: &Workload, target: Target) -> Result<Forecast> {
    let profile = workload.dry_run(&Device::plan_for(target, UNLIMITED), PLANNED_STEPS)?;
    Ok(Forecast { profile, aside: HostOverhead::of(workload, target)? })
}
