//! One step on made-up data: what a configuration costs, measured or planned.

use std::time::Instant;

use crate::device::{Device, Target};
use crate::error::Result;
use crate::memory::{Event, OpCost, Peak, Phase, Role};
use crate::models::loss::{Batch, LossSettings, Targets};
use crate::models::{Architecture, Network, Recompute, Supervision};
use crate::nn::Parameters;
use crate::nn::optim::{Optimizer, OptimizerSettings};
use crate::ops;
use crate::rng::Rng;
use crate::tape::{Mode, Precision, Tape};
use crate::tensor::{DType, Tensor};

/// What is rehearsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepKind {
    /// Loss, gradients, update.
    #[default]
    Train,
    /// The loss with running statistics.
    Evaluate,
    /// Probabilities: of a U-Net those of all voxels, of an occupancy network those of [`StepSizes::points`] points a
    /// volume, one chunk of the many that a volume takes.
    Infer,
}

/// What a step works on, and how.
#[derive(Clone, Copy, Debug)]
pub struct StepSizes {
    /// Full-resolution volume.
    pub volume: [usize; 3],
    /// Volumes (of a 2D network: slices) a step.
    pub batch: usize,
    /// Points a volume.
    pub points: usize,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// Number format of the step.
    pub precision: Precision,
    /// What is rehearsed.
    pub step: StepKind,
    /// The optimiser of training steps; others have none.
    pub optimizer: OptimizerSettings,
}

impl StepSizes {
    /// A training step at recompute level 0 with the default optimiser.
    pub fn new(volume: [usize; 3], batch: usize, points: usize) -> Self {
        Self {
            volume,
            batch,
            points,
            recompute: Recompute::default(),
            precision: Precision::default(),
            step: StepKind::default(),
            optimizer: OptimizerSettings::default(),
        }
    }
}

/// What a step cost.
pub struct StepProfile {
    /// Trainable scalars.
    pub parameters: usize,
    /// The moment of most bytes during the last step.
    pub peak: Peak,
    /// Most bytes of saved and transient activations and workspace during the last step.
    pub peak_activations: u64,
    /// Bytes that the arena reserved, fragmentation included.
    pub reserved: u64,
    /// Seconds of each step.
    pub seconds: Vec<f64>,
    /// Kernels that the last step launched, and how often (none elsewhere than on CUDA).
    pub launches: Vec<(&'static str, u64)>,
    /// The ledger's log of the last step.
    pub events: Vec<Event>,
    /// What its ops did.
    pub work: Vec<OpCost>,
}

impl StepProfile {
    /// Launches of all kernels together.
    pub fn all_launches(&self) -> u64 {
        self.launches.iter().map(|(_, launches)| launches).sum()
    }
}

/// A fresh network and one made-up batch.
pub struct SyntheticStep {
    device: Device,
    parameters: Parameters,
    network: Box<dyn Network>,
    /// Of training steps.
    optimizer: Option<Optimizer>,
    batch: Batch,
    /// What a trainer holds beside it on a CUDA device (`trainer/feed.rs`): classes as bytes, and the next batch.
    _fed: Vec<Tensor>,
    sizes: StepSizes,
    steps: usize,
}

/// Steps after which all are alike.
const DIFFERENT_STEPS: usize = 2;

impl SyntheticStep {
    /// Network, optimiser and batch on `device` (which may be a plan).
    ///
    /// # Errors
    /// Sizes that the network does not admit, or no memory.
    pub fn new(device: &Device, architecture: &dyn Architecture, sizes: StepSizes) -> Result<Self> {
        let mut parameters = Parameters::new(device);
        let mut network = architecture.build(&mut parameters, &mut Rng::new(0))?;
        sizes.recompute.choices(&architecture.units())?;
        network.set_recompute(sizes.recompute);
        network.set_precision(sizes.precision);
        let optimizer = match sizes.step {
            StepKind::Train => Some(Optimizer::new(sizes.optimizer, &parameters)?),
            StepKind::Evaluate | StepKind::Infer => None,
        };
        let batch = device.in_phase(Phase::Data, || device.in_op("batch", || made_up(device, architecture, sizes)))?;
        let trains = matches!((device.target(), sizes.step), (Target::Cuda(_), StepKind::Train));
        let fed = || if trains { beside(&batch) } else { Ok(Vec::new()) };
        let _fed = device.in_phase(Phase::Data, || device.in_op("batch", fed))?;
        Ok(Self { device: device.clone(), parameters, network, optimizer, batch, _fed, sizes, steps: 0 })
    }

    /// Trainable scalars.
    pub fn parameters(&self) -> usize {
        self.parameters.count()
    }

    /// One step.
    ///
    /// # Errors
    /// Sizes that the network does not admit, or no memory.
    pub fn step(&mut self) -> Result<()> {
        let (device, architecture, sizes) = (self.device.clone(), self.network.architecture(), self.sizes);
        let foreseen = device.foresee(("synthetic step", format!("{architecture:?} {sizes:?}")), |plan| {
            let mut same = Self::new(plan, architecture, sizes)?;
            (0..DIFFERENT_STEPS).try_for_each(|_| same.step())
        });
        let number = self.steps;
        self.steps += 1;
        device.place_ahead(&foreseen, number, || self.take())
    }

    fn take(&mut self) -> Result<()> {
        let Self { device, parameters, network, optimizer, batch, sizes, .. } = self;
        let settings = LossSettings::default();
        match sizes.step {
            StepKind::Train => {
                let tape = Tape::new(device, Mode::Train);
                let loss = device.in_phase(Phase::Forward, || network.loss(&tape, parameters, batch, settings))?;
                tape.backward(loss, parameters)?;
                if let Some(optimizer) = optimizer {
                    optimizer.step(parameters, 1.0)?;
                }
                device.in_phase(Phase::Optimizer, || parameters.clear_gradients());
            }
            StepKind::Evaluate => {
                let tape = Tape::new(device, Mode::Eval);
                device.in_phase(Phase::Evaluate, || network.loss(&tape, parameters, batch, settings))?;
            }
            StepKind::Infer => {
                let tape = Tape::new(device, Mode::Eval);
                device.in_phase(Phase::Evaluate, || probabilities(&tape, parameters, &**network, batch))?;
            }
        }
        Ok(())
    }

    /// The loss of a training step's forward pass.
    ///
    /// # Errors
    /// Sizes that the network does not admit, or no memory.
    pub fn loss(&self) -> Result<f32> {
        let tape = Tape::new(&self.device, Mode::Train);
        let loss = self.network.loss(&tape, &self.parameters, &self.batch, LossSettings::default())?;
        Ok(loss.tensor().to_vec()?.first().copied().unwrap_or(f32::NAN))
    }

    /// Gradients of the loss with respect to each trainable parameter, under its name, of a training step without update.
    ///
    /// # Errors
    /// Sizes that the network does not admit, or no memory.
    pub fn gradients(&mut self) -> Result<Vec<(String, Vec<f32>)>> {
        let Self { device, parameters, network, batch, .. } = self;
        let tape = Tape::new(device, Mode::Train);
        let loss =
            device.in_phase(Phase::Forward, || network.loss(&tape, parameters, batch, LossSettings::default()))?;
        tape.backward(loss, parameters)?;
        let mut gradients = Vec::new();
        for parameter in parameters.iter() {
            if let Some(gradient) = parameter.gradient() {
                gradients.push((parameter.name().to_string(), gradient.to_vec()?));
            }
        }
        parameters.clear_gradients();
        Ok(gradients)
    }
}

/// Runs `steps` steps of a fresh network on `device` (which may be a plan).
///
/// # Errors
/// Sizes that the network does not admit, or no memory.
pub fn dry_run(
    device: &Device,
    architecture: &dyn Architecture,
    sizes: StepSizes,
    steps: usize,
) -> Result<StepProfile> {
    let mut stage = SyntheticStep::new(device, architecture, sizes)?;
    let parameters = stage.parameters.count();
    observe(device, parameters, steps, || stage.step())
}

/// Rehearses `steps` steps and another one with the device's clock ([`Device::stop_clock`]): what it tells, and the seconds of
/// each entry of its record of work and of the rest.
///
/// # Errors
/// As [`dry_run`].
pub fn dry_run_timed(
    device: &Device,
    architecture: &dyn Architecture,
    sizes: StepSizes,
    steps: usize,
) -> Result<(StepProfile, Vec<f64>)> {
    let mut stage = SyntheticStep::new(device, architecture, sizes)?;
    let parameters = stage.parameters.count();
    observe(device, parameters, steps, || stage.step())?;
    device.start_clock();
    let last = observe(device, parameters, 1, || stage.step());
    let seconds = device.stop_clock();
    Ok((last?, seconds?))
}

/// Runs `steps` steps with the ledger's log on; what it tells of the last.
///
/// # Errors
/// What `step` reports.
pub fn observe(
    device: &Device,
    parameters: usize,
    steps: usize,
    mut step: impl FnMut() -> Result<()>,
) -> Result<StepProfile> {
    let (mut seconds, mut events, mut launches, mut work) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps.max(1) {
        device.ledger(|ledger| {
            ledger.reset_peak();
            ledger.record(true);
        });
        device.cost_log(|log| log.record(true));
        let (started, before) = (Instant::now(), device.launches_by_kernel());
        let done = step().and_then(|()| device.synchronize());
        device.cost_log(|log| log.record(false));
        if done.is_err() {
            device.ledger(|ledger| ledger.record(false));
        }
        done?;
        seconds.push(started.elapsed().as_secs_f64());
        launches = since(&before, device.launches_by_kernel());
        events = device.ledger(|ledger| ledger.take_events());
        work = device.cost_log(|log| log.take());
    }
    let (peak, peak_activations) = device.ledger(|ledger| {
        ledger.record(false);
        (ledger.peak(), ledger.peak_activations())
    });
    Ok(StepProfile { parameters, peak, peak_activations, reserved: device.reserved(), seconds, launches, events, work })
}

/// Launches of each kernel beyond those `before`, without kernels that were not launched.
fn since(before: &[(&'static str, u64)], now: Vec<(&'static str, u64)>) -> Vec<(&'static str, u64)> {
    let earlier = |name| before.iter().find(|(known, _)| *known == name).map_or(0, |(_, launches)| *launches);
    let more = now.into_iter().map(|(name, launches)| (name, launches - earlier(name)));
    more.filter(|(_, launches)| *launches > 0).collect()
}

/// The two places that batches like `batch` come to on a CUDA device, without the numbers of the present one.
fn beside(batch: &Batch) -> Result<Vec<Tensor>> {
    let (classes, numbers) = match &batch.targets {
        Targets::Points { coordinates, labels, label_volumes } => {
            (vec![Some(labels), label_volumes.as_ref()], vec![&batch.volumes, coordinates])
        }
        Targets::Dense(labels) => (vec![Some(labels)], vec![&batch.volumes]),
    };
    let classes = classes.into_iter().flatten().flat_map(|labels| [(labels, DType::U8); 2]);
    let all = numbers.into_iter().map(|numbers| (numbers, DType::F32)).chain(classes);
    all.map(|(like, kind)| Tensor::empty(like.device(), like.shape(), kind, Role::Data)).collect()
}

/// What inference computes: of an occupancy network the encoding and one chunk of points.
fn probabilities(tape: &Tape, parameters: &Parameters, network: &dyn Network, batch: &Batch) -> Result<()> {
    let volumes = tape.constant(batch.volumes.clone());
    let points = match &batch.targets {
        Targets::Points { coordinates, .. } => Some(tape.constant(coordinates.clone())),
        Targets::Dense(_) => None,
    };
    let logits = network.logits(tape, parameters, &volumes, points.as_ref())?;
    drop((volumes, points));
    ops::probabilities(tape, &logits).map(drop)
}

/// Noise as a volume, noise as its label.
fn made_up(device: &Device, architecture: &dyn Architecture, sizes: StepSizes) -> Result<Batch> {
    let StepSizes { volume: [d, h, w], batch, points, .. } = sizes;
    let mut rng = Rng::new(1);
    let mut tensor = |shape: &[usize], draw: &mut dyn FnMut(&mut Rng) -> f32| {
        // The memory first: its budget is what refuses an absurd size.
        let mut tensor = Tensor::empty(device, shape, crate::tensor::DType::F32, Role::Data)?;
        if !device.is_plan() {
            tensor.write(&(0..tensor.len()).map(|_| draw(&mut rng)).collect::<Vec<f32>>())?;
        }
        Ok::<_, crate::Error>(tensor)
    };
    let channels = architecture.image_channels();
    let mut noise = |rng: &mut Rng| rng.uniform() * 2.0 - 1.0;
    let mut coin = |rng: &mut Rng| f32::from(rng.uniform() < 0.3);
    let supervision = architecture.supervision();
    let [d, h, w] = if supervision.slice_axis().is_some() { [1, d, h] } else { [d, h, w] };
    let volumes = tensor(&[batch, d, h, w, channels], &mut noise)?;
    let Supervision::Points { label_volumes, .. } = supervision else {
        return Ok(Batch { volumes, targets: Targets::Dense(tensor(&[batch, d, h, w, 1], &mut coin)?), known: None });
    };
    let mut axis = 0;
    let mut index = |rng: &mut Rng| {
        axis = (axis + 1) % 3;
        (rng.uniform() * [w, d, h][axis] as f32).floor()
    };
    let all = batch
        .checked_mul(points)
        .ok_or_else(|| crate::Error::shape("batch", format!("{batch} volumes of {points} points are too many")))?;
    let coordinates = tensor(&[all, 3], &mut index)?;
    let labels = tensor(&[all, 1], &mut coin)?;
    let label_volumes = label_volumes.then(|| tensor(&[batch, d, h, w, 1], &mut coin)).transpose()?;
    Ok(Batch { volumes, targets: Targets::Points { coordinates, labels, label_volumes }, known: None })
}
