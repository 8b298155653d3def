//! The training loop.

use std::time::Instant;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::memory::{Event, Phase};
use crate::models::{Network, NetworkConfig, Recompute};
use crate::nn::Parameters;
use crate::nn::optim::Optimizer;
use crate::rng::Rng;
use crate::tape::{Mode, Tape};
use crate::task::Case;
use crate::train::batch;
use crate::train::costs::Costs;
use crate::train::settings::TrainSettings;
use crate::train::step::{self, Batch};

/// The memory events of one step are kept, the first from this one (from 0) on: everything that lives across steps then
/// exists.
const RECORDED_STEP: u64 = 1;

/// A network in training.
pub struct Trainer {
    device: Device,
    network: Network,
    parameters: Parameters,
    optimizer: Optimizer,
    settings: TrainSettings,
    losses: Vec<f32>,
    costs: Costs,
    events: Vec<Event>,
}

impl Trainer {
    /// A fresh network and optimiser on `device`.
    ///
    /// # Errors
    /// An impossible configuration, or no memory.
    pub fn new(device: &Device, config: &NetworkConfig, settings: TrainSettings) -> Result<Self> {
        let mut parameters = Parameters::new(device);
        let mut network = Network::new(config, &mut parameters, &mut Rng::named(settings.seed, "weights"))?;
        network.set_recompute(settings.recompute);
        let optimizer = Optimizer::new(settings.optimizer, &parameters)?;
        device.ledger(|ledger| ledger.reset_peak());
        Ok(Self {
            device: device.clone(),
            network,
            parameters,
            optimizer,
            settings,
            losses: Vec::new(),
            costs: Costs::default(),
            events: Vec::new(),
        })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Its weights, for loading.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimiser, for loading.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// What the run was told.
    pub fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    /// Goes on at another level of recomputation.
    pub fn set_recompute(&mut self, level: Recompute) {
        self.settings.recompute = level;
        self.network.set_recompute(level);
    }

    /// Loss of each step so far.
    pub fn losses(&self) -> &[f32] {
        &self.losses
    }

    /// Mean loss of the last `steps` steps; NaN before the first.
    pub fn recent_loss(&self, steps: u64) -> f64 {
        let recent = &self.losses[self.losses.len().saturating_sub(steps.max(1) as usize)..];
        match recent.is_empty() {
            true => f64::NAN,
            false => recent.iter().map(|&loss| f64::from(loss)).sum::<f64>() / recent.len() as f64,
        }
    }

    /// What it cost so far.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Goes on from a stored course.
    pub fn set_course(&mut self, losses: Vec<f32>, costs: Costs) {
        (self.losses, self.costs) = (losses, costs);
    }

    /// Memory events of one training step, once that step has been made in this process.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Steps an epoch over `cases` cases takes; an incomplete last batch is dropped.
    pub fn steps_per_epoch(&self, cases: usize) -> u64 {
        (cases / self.batch_size(cases)) as u64
    }

    fn batch_size(&self, cases: usize) -> usize {
        self.settings.batch_size.clamp(1, cases.max(1))
    }

    /// Trains until all epochs are done. `after` hears of each step.
    ///
    /// # Errors
    /// [`Error::Interrupted`] between two steps after an interrupt, [`Error::NotFinite`] for a loss that is not finite,
    /// no memory, or what `after` reports. The weights are those of the last whole step.
    pub fn train(&mut self, cases: &[Case], mut after: impl FnMut(&Self) -> Result<()>) -> Result<()> {
        if cases.is_empty() {
            return Err(Error::Model("there are no training cases".into()));
        }
        let per_epoch = self.steps_per_epoch(cases.len());
        let total = self.settings.epochs * per_epoch;
        while self.optimizer.steps() < total {
            interrupt::check(|| format!("{} of {total} steps are done", self.optimizer.steps()))?;
            self.step(cases, per_epoch, total)?;
            after(self)?;
        }
        Ok(())
    }

    /// Takes some steps whatever the number of epochs, for a plan's sake.
    ///
    /// # Errors
    /// As [`Trainer::train`].
    pub fn rehearse(&mut self, cases: &[Case], steps: u64) -> Result<()> {
        let per_epoch = self.steps_per_epoch(cases.len());
        (0..steps).try_for_each(|_| self.step(cases, per_epoch, steps))
    }

    /// Checks that the weights are worth keeping.
    ///
    /// # Errors
    /// [`Error::NotFinite`] naming the first that is not finite.
    pub fn check_weights(&self) -> Result<()> {
        for parameter in self.parameters.iter() {
            if !parameter.value().to_vec()?.iter().all(|weight| weight.is_finite()) {
                let (step, op) = (self.optimizer.steps(), parameter.name().into());
                return Err(Error::NotFinite { what: "a weight".into(), step, op });
            }
        }
        Ok(())
    }

    fn step(&mut self, cases: &[Case], per_epoch: u64, total: u64) -> Result<()> {
        let started = Instant::now();
        let step = self.optimizer.steps();
        let (epoch, within) = (step / per_epoch, (step % per_epoch) as usize);
        let size = self.batch_size(cases.len());
        let order = batch::order(cases.len(), self.settings.seed, epoch);
        let chosen: Vec<&Case> = order[within * size..][..size].iter().map(|&case| &cases[case]).collect();
        let recorded = step >= RECORDED_STEP && self.events.is_empty();
        if recorded {
            self.device.ledger(|ledger| ledger.record(true));
        }
        let batch = self.device.in_phase(Phase::Data, || {
            self.device
                .in_op("batch", || batch::make(&self.device, &self.network.config(), &self.settings, &chosen, step))
        })?;
        self.parameters.clear_gradients();
        let loss = self.forward_and_backward(&batch)?;
        drop(batch);
        if !loss.is_finite() {
            return Err(Error::NotFinite { what: "the loss".into(), step: step + 1, op: "the loss".into() });
        }
        let factor = self.settings.schedule.factor(epoch, step as f32 / total.max(1) as f32);
        self.optimizer.step(&mut self.parameters, factor)?;
        self.device.in_phase(Phase::Optimizer, || self.parameters.clear_gradients());
        if recorded {
            self.events = self.device.ledger(|ledger| {
                let events = ledger.take_events();
                ledger.record(false);
                events
            });
        }
        self.losses.push(loss);
        self.costs.step_seconds.push(started.elapsed().as_secs_f32());
        let (peak, activations) = self.device.ledger(|ledger| (ledger.peak(), ledger.peak_activations()));
        self.costs.note_peak(&peak, activations);
        Ok(())
    }

    /// The loss of `batch`; its gradients are left in the parameters.
    fn forward_and_backward(&mut self, batch: &Batch) -> Result<f32> {
        let tape = self.tape();
        let loss = self.device.in_phase(Phase::Forward, || {
            step::loss(&tape, &self.parameters, &self.network, batch, self.settings.loss)
        })?;
        let value = loss.tensor().to_vec()?[0];
        if !value.is_finite() {
            return Err(self.blame(batch));
        }
        tape.backward(loss, &mut self.parameters)?;
        Ok(value)
    }

    fn tape(&self) -> Tape {
        Tape::new(&self.device, Mode::Train)
            .with_seed(Rng::named(self.settings.seed, "dropout").split(self.optimizer.steps()).next_u64())
    }

    /// Runs the forward pass again, looking at every op, to name the first whose output is not finite.
    fn blame(&self, batch: &Batch) -> Error {
        let tape = self.tape();
        tape.check_finite();
        let again = step::loss(&tape, &self.parameters, &self.network, batch, self.settings.loss);
        let op = match again {
            Ok(_) => tape.first_not_finite().unwrap_or_else(|| "the loss".into()),
            Err(error) => return error,
        };
        Error::NotFinite { what: "the loss".into(), step: self.optimizer.steps() + 1, op }
    }
}
