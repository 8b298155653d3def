//! Inference as a repeatable step, as [`crate::train::dry_run::SyntheticStep`] is for training.

use crate::device::Device;
use crate::error::Result;
use crate::infer::{Occupancy, QueryGrid, Search, network_pass};
use crate::memory::{Phase, Role};
use crate::models::{Architecture, Network};
use crate::nn::Parameters;
use crate::ops::{self, lattice};
use crate::rng::Rng;
use crate::tape::{Mode, Tape};
use crate::tensor::{DType, Tensor};
use crate::train::dry_run::{StepKind, StepSizes};

/// A fresh network about to segment one made-up volume.
pub(super) struct InferenceStep {
    parameters: Parameters,
    network: Box<dyn Network>,
    volume: Tensor,
    search: Search,
    points: usize,
}

impl InferenceStep {
    /// Network and volume on `device` (which may be a plan); `sizes.points` are decoded at once, 0 for as many as the
    /// budget admits. A 2D network takes a batch of slices.
    ///
    /// # Errors
    /// Sizes that the network does not admit, or no memory.
    pub fn new(device: &Device, architecture: &dyn Architecture, sizes: StepSizes) -> Result<Self> {
        let mut parameters = Parameters::new(device);
        let mut network = architecture.build(&mut parameters, &mut Rng::new(0))?;
        network.set_precision(sizes.precision);
        let ([d, h, w], channels) = (sizes.volume, architecture.image_channels());
        let shape = match architecture.supervision().slice_axis() {
            Some(_) => [sizes.batch, 1, d, h, channels],
            None => [1, d, h, w, channels],
        };
        let mut rng = Rng::new(1);
        let volume = device.in_phase(Phase::Data, || match device.is_plan() {
            true => Tensor::empty(device, &shape, DType::F32, Role::Data),
            false => {
                let voxels: Vec<f32> = (0..shape.iter().product()).map(|_| rng.uniform() * 2.0 - 1.0).collect();
                Tensor::from_slice(device, &shape, Role::Data, &voxels)
            }
        })?;
        // Evaluation asks everywhere; segmenting a scan, where the classes of neighbours differ.
        let search = if sizes.step == StepKind::Evaluate { Search::dense() } else { Search::hierarchical() };
        Ok(Self { parameters, network, volume, search, points: sizes.points })
    }

    /// Trainable scalars.
    pub fn parameters(&self) -> usize {
        self.parameters.count()
    }

    /// A class for every voxel.
    ///
    /// # Errors
    /// As [`InferenceStep::new`].
    pub fn step(&mut self) -> Result<()> {
        let device = self.parameters.device();
        device.in_phase(Phase::Evaluate, || match self.network.occupancy() {
            Some(network) => {
                let occupancy = Occupancy::new(network, &self.parameters, self.volume.clone(), self.points)?;
                let grid = QueryGrid::voxels(occupancy.shape());
                let answer = |stride: usize, indices: &Tensor| {
                    let logits = occupancy.logits(&grid.strided(stride), indices.clone())?;
                    lattice::classify(&logits.tensor(), 0.5)
                };
                let begin = |lattice: &mut lattice::Lattice| lattice.mark_all();
                self.search.run(device, grid.shape, occupancy.most_points(), begin, answer).map(drop)
            }
            None => {
                let (network, shape) = (&*self.network, self.volume.shape());
                let pass = |network: &dyn Network, parameters: &Parameters, volume: Tensor| {
                    let tape = Tape::new(parameters.device(), Mode::Eval);
                    let x = tape.constant(volume);
                    let logits = network.logits(&tape, parameters, &x, None)?;
                    drop(x);
                    ops::probabilities(&tape, &logits).map(drop)
                };
                let foreseen =
                    network_pass::foreseen(network, &self.parameters, ("volume", shape), |network, parameters| {
                        // The volume lives before and after the step, and has no place in its layout.
                        let volume = Tensor::empty(parameters.device(), shape, DType::F32, Role::Data)?;
                        network_pass::rehearsed(parameters, || pass(network, parameters, volume.clone()))
                    });
                device.place_ahead(&foreseen, 0, || pass(network, &self.parameters, self.volume.clone()))
            }
        })
    }
}
