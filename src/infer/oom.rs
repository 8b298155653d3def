//! What would help where an inference does not fit: smaller windows, fewer points at once, another number format. Each is asked
//! of a plan of the very work.

use super::segmenter::SegmenterOptions;
use super::sliding_window::{self, Decision, Destination};
use super::{Occupancy, QueryGrid, Segmenter, SlidingWindow};
use crate::data::preprocess::GridTransform;
use crate::data::{Geometry, Volume};
use crate::device::{Device, Target, UNLIMITED};
use crate::error::{Error, Result};
use crate::memory::{OutOfMemory, Remedy, Role};
use crate::models::Network;
use crate::nn::Parameters;
use crate::ops::lattice::BLOCK;
use crate::rng::Rng;
use crate::tape::Precision;
use crate::task::Task;
use crate::tensor::{DType, Tensor};

/// A volume on its way through a network, as far as its bytes depend on it.
pub(super) struct InferenceOom<'a> {
    /// The network.
    pub network: &'a dyn Network,
    /// What it is asked.
    pub task: &'a Task,
    /// How.
    pub options: &'a SegmenterOptions,
    /// Shape of the volume on the network's grid, and where it lies.
    pub shape: [usize; 3],
    /// See there.
    pub geometry: Geometry,
    /// Points that an occupancy network answers for.
    pub grid: QueryGrid,
    /// From the network's grid to the scan's, if a U-Net's answer is interpolated.
    pub way: Option<&'a GridTransform>,
    /// Strips that a U-Net's answer is made in.
    pub strips: usize,
    /// The command has flags for windows and points.
    pub flags: bool,
}

impl InferenceOom<'_> {
    /// The error with what would fit on `device`, and with what the work needs as it is.
    pub fn explain(&self, error: OutOfMemory, device: &Device) -> OutOfMemory {
        let needs = self.needs(device.target(), self.options, self.network.precision()).ok();
        OutOfMemory { needs, remedies: self.remedies(device).unwrap_or_default(), ..error }
    }

    /// Cheapest first: windows cost little, points at once less; another number format costs accuracy.
    fn remedies(&self, device: &Device) -> Result<Vec<Remedy>> {
        let (target, budget) = (device.target(), device.budget());
        let mut found = Vec::new();
        let mut consider = |change: String, options: &SegmenterOptions, precision| {
            let needs = self.needs(target, options, precision)?;
            let fits = needs <= budget;
            if fits {
                found.push(Remedy { change, needs });
            }
            Ok::<_, Error>(fits)
        };
        let own = self.network.precision();
        if self.flags {
            match self.network.occupancy() {
                None => {
                    // From the largest cube down, each three quarters of the one before.
                    let now = self.options.windows.size.unwrap_or(self.shape);
                    let longest = (0..3).map(|k| now[k].min(self.shape[k])).max().unwrap_or(0);
                    let mut size = smaller_window(self.network, longest);
                    while size > 0 {
                        let windows = SlidingWindow { size: Some([size; 3]), ..self.options.windows };
                        let options = SegmenterOptions { windows, ..self.options.clone() };
                        if consider(format!("--window {size}x{size}x{size}"), &options, own)? {
                            break;
                        }
                        size = smaller_window(self.network, size);
                    }
                }
                Some(_) => {
                    let mut points = self.options.most_points / 2;
                    while points >= BLOCK {
                        let options = SegmenterOptions { most_points: points, ..self.options.clone() };
                        if consider(format!("--points-at-once {points}"), &options, own)? {
                            break;
                        }
                        points /= 2;
                    }
                }
            }
        }
        if let (Target::Cuda(_), Precision::F32 | Precision::Tf32) = (target, own) {
            consider("--precision bf16".into(), self.options, Precision::Bf16)?;
        }
        Ok(found)
    }

    /// Bytes that the work reserves, with the first of its strips. Points that are left to the memory are as few as they can be.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn needs(&self, target: Target, options: &SegmenterOptions, precision: Precision) -> Result<u64> {
        let device = Device::plan_for(target, UNLIMITED);
        let mut parameters = Parameters::new(&device);
        let architecture = self.network.architecture();
        let mut network = architecture.build(&mut parameters, &mut Rng::new(0))?;
        network.set_precision(precision);
        let (shape, channels) = (self.shape, architecture.image_channels());
        match network.occupancy() {
            None => {
                let voxels = vec![0.0; shape.iter().product::<usize>() * channels];
                let volume = Volume { shape, channels, voxels, geometry: self.geometry };
                let decision = Decision { threshold: options.threshold, keep: options.probabilities };
                // All windows are alike.
                let mut passes = 0;
                let mut enough = || {
                    passes += 1;
                    if passes < 2 { Ok(()) } else { Err(Error::Interrupted("the plan knows enough".into())) }
                };
                let destination = Destination { decision, way: self.way, strips: self.strips };
                let windows = &options.windows;
                match sliding_window::predict_on(&*network, &parameters, &volume, windows, destination, &mut enough) {
                    Ok(_) | Err(Error::Interrupted(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Some(inner) => {
                let [x, y, z] = shape;
                let volume = Tensor::empty(&device, &[1, x, y, z, channels], DType::F32, Role::Data)?;
                let points = if options.most_points == 0 { BLOCK } else { options.most_points };
                let occupancy = Occupancy::new(inner, &parameters, volume, points)?;
                let segmenter = Segmenter::new(&*network, &parameters, self.task, options.clone())?;
                segmenter.ask(&occupancy, &self.grid, &options.search, options.probabilities, &mut || Ok(()))?;
            }
        }
        Ok(device.reserved())
    }
}

/// Three quarters of a side or less, a multiple of the network's.
fn smaller_window(network: &dyn Network, side: usize) -> usize {
    let multiple = network.architecture().multiples().into_iter().max().unwrap_or(1).max(1);
    side * 3 / 4 / multiple * multiple
}
