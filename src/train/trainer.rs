//! The training loop.

use std::time::Instant;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::memory::Role;
use crate::memory::{Event, Phase};
use crate::models::{Network, NetworkConfig, Recompute};
use crate::nn::optim::Optimizer;
use crate::nn::{Parameter, Parameters};
use crate::ops::{self, first_not_finite};
use crate::rng::Rng;
use crate::tape::{Mode, Tape, Var};
use crate::task::Case;
use crate::tensor::Tensor;
use crate::train::average::Average;
use crate::train::batch;
use crate::train::costs::Costs;
use crate::train::gradients;
use crate::train::settings::TrainSettings;
use crate::train::step::{self, Batch};
use crate::train::validation::Validation;

/// The memory events of one step are kept, the first from this one (from 0) on: everything that lives across steps then
/// exists.
const RECORDED_STEP: u64 = 1;

/// How a run went so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Loss of each step.
    pub losses: Vec<f32>,
    /// What the validations found.
    pub validations: Vec<Validation>,
}

/// A network in training.
pub struct Trainer {
    device: Device,
    network: Network,
    parameters: Parameters,
    optimizer: Optimizer,
    average: Option<Average>,
    settings: TrainSettings,
    course: Course,
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
        let average = settings.average_decay.map(|decay| Average::new(decay, &parameters)).transpose()?;
        device.ledger(|ledger| ledger.reset_peak());
        Ok(Self {
            device: device.clone(),
            network,
            parameters,
            optimizer,
            average,
            settings,
            course: Course::default(),
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

    /// The averaged weights, if the run keeps them.
    pub fn average(&self) -> Option<&Average> {
        self.average.as_ref()
    }

    /// The averaged weights, for loading.
    pub fn average_mut(&mut self) -> Option<&mut Average> {
        self.average.as_mut()
    }

    /// Starts the average anew at the present weights, as after loading some.
    ///
    /// # Errors
    /// No memory.
    pub fn restart_average(&mut self) -> Result<()> {
        self.average = self.settings.average_decay.map(|decay| Average::new(decay, &self.parameters)).transpose()?;
        Ok(())
    }

    /// Runs `work` with the weights that count: the averaged ones, if the run keeps them.
    pub fn with_best_weights<T>(&mut self, work: impl FnOnce(&Self) -> T) -> T {
        // Exchanged for the time of the work; the trainer holds the true weights again whatever it returns.
        let Some(mut average) = self.average.take() else { return work(self) };
        average.exchange(&mut self.parameters);
        let result = work(self);
        average.exchange(&mut self.parameters);
        self.average = Some(average);
        result
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
        &self.course.losses
    }

    /// How the run went so far.
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// Takes note of a validation.
    pub fn note_validation(&mut self, validation: Validation) {
        self.course.validations.push(validation);
    }

    /// Mean loss of the last `steps` steps; NaN before the first.
    pub fn recent_loss(&self, steps: u64) -> f64 {
        let losses = self.losses();
        let recent = &losses[losses.len().saturating_sub(steps.max(1) as usize)..];
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
    pub fn set_course(&mut self, course: Course, costs: Costs) {
        (self.course, self.costs) = (course, costs);
    }

    /// Memory events of one training step, once that step has been made in this process.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Steps an epoch over `cases` cases takes; the cases of an incomplete last step are dropped. At least one: it then
    /// takes cases more than once.
    pub fn steps_per_epoch(&self, cases: usize) -> u64 {
        ((cases / (self.batch_size(cases) * self.accumulate())) as u64).max(1)
    }

    /// Steps of the whole run over `cases` cases.
    pub fn total_steps(&self, cases: usize) -> u64 {
        self.settings.epochs * self.steps_per_epoch(cases)
    }

    fn accumulate(&self) -> usize {
        self.settings.accumulate.max(1)
    }

    fn batch_size(&self, cases: usize) -> usize {
        self.settings.batch_size.clamp(1, cases.max(1))
    }

    /// Trains until all epochs are done. `after` hears of each step.
    ///
    /// # Errors
    /// [`Error::Interrupted`] between two steps after an interrupt, [`Error::NotFinite`] for a loss that is not finite,
    /// no memory, or what `after` reports. The weights are those of the last whole step.
    pub fn train(&mut self, cases: &[Case], mut after: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if cases.is_empty() {
            return Err(Error::Model("there are no training cases".into()));
        }
        let (per_epoch, total) = (self.steps_per_epoch(cases.len()), self.total_steps(cases.len()));
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
        let weights: Vec<&Tensor> = self.parameters.iter().map(Parameter::value).collect();
        match first_not_finite(&self.device, &weights)? {
            None => Ok(()),
            Some(i) => {
                let name = self.parameters.iter().nth(i).map_or_else(String::new, |parameter| parameter.name().into());
                Err(Error::NotFinite { what: "a weight".into(), step: self.optimizer.steps(), op: name })
            }
        }
    }

    fn step(&mut self, cases: &[Case], per_epoch: u64, total: u64) -> Result<()> {
        let started = Instant::now();
        let step = self.optimizer.steps();
        let recorded = step >= RECORDED_STEP && self.events.is_empty();
        if recorded {
            self.device.ledger(|ledger| ledger.record(true));
        }
        self.parameters.clear_gradients();
        let mut loss = 0.0;
        for part in 0..self.accumulate() {
            let batch = self.batch(cases, per_epoch, part)?;
            loss += self.forward_and_backward(&batch)?;
        }
        if let Some(limit) = self.settings.clip_norm {
            self.device.in_phase(Phase::Optimizer, || gradients::clip(&mut self.parameters, limit, step + 1))?;
        }
        let factor = self.rate_factor(step, per_epoch, total);
        self.optimizer.step(&mut self.parameters, factor)?;
        self.device.in_phase(Phase::Optimizer, || {
            self.parameters.clear_gradients();
            self.average.as_mut().map_or(Ok(()), |average| average.update(&self.parameters, step + 1))
        })?;
        if recorded {
            self.events = self.device.ledger(|ledger| {
                let events = ledger.take_events();
                ledger.record(false);
                events
            });
        }
        self.course.losses.push(loss);
        self.costs.step_seconds.push(started.elapsed().as_secs_f32());
        let (peak, activations) = self.device.ledger(|ledger| (ledger.peak(), ledger.peak_activations()));
        self.costs.note_peak(&peak, activations);
        Ok(())
    }

    /// What the rates are multiplied by in step `step` (from 0) of `total`.
    fn rate_factor(&self, step: u64, per_epoch: u64, total: u64) -> f32 {
        self.settings.schedule.factor(step / per_epoch, step as f32 / total.max(1) as f32)
    }

    /// The learning rate of the weights in the last step over `cases` cases.
    pub fn last_rate(&self, cases: usize) -> f32 {
        let step = self.optimizer.steps().saturating_sub(1);
        self.settings.optimizer.rate * self.rate_factor(step, self.steps_per_epoch(cases), self.total_steps(cases))
    }

    /// The batch of part `part` of the present step.
    fn batch(&self, cases: &[Case], per_epoch: u64, part: usize) -> Result<Batch> {
        let step = self.optimizer.steps();
        let (epoch, within) = (step / per_epoch, (step % per_epoch) as usize);
        let (size, parts) = (self.batch_size(cases.len()), self.accumulate());
        let order = batch::order(cases.len(), self.settings.seed, epoch);
        let first = (within * parts + part) * size;
        let chosen: Vec<&Case> = (first..first + size).map(|i| &cases[order[i % order.len()]]).collect();
        let pass = step * parts as u64 + part as u64;
        self.device.in_phase(Phase::Data, || {
            let batch = batch::draw(&self.network.config(), &self.settings, &chosen, pass)?;
            self.device.in_op("batch", || batch.upload(&self.device))
        })
    }

    /// The share of the step's loss that `batch` makes; its gradients are added to those in the parameters.
    fn forward_and_backward(&mut self, batch: &Batch) -> Result<f32> {
        let tape = self.tape();
        let loss = self.device.in_phase(Phase::Forward, || {
            let loss = step::loss(&tape, &self.parameters, &self.network, batch, self.settings.loss)?;
            self.share(&tape, loss)
        })?;
        let value = loss.tensor().to_vec()?[0];
        if !value.is_finite() {
            return Err(self.blame(batch));
        }
        tape.backward(loss, &mut self.parameters)?;
        Ok(value)
    }

    /// `loss` over the number of passes that make a step.
    fn share(&self, tape: &Tape, loss: Var) -> Result<Var> {
        let parts = self.accumulate();
        if parts == 1 {
            return Ok(loss);
        }
        let nothing = tape.constant(Tensor::from_slice(&self.device, loss.shape(), Role::Transient, &[0.0])?);
        ops::scale_add(tape, &nothing, &loss, 1.0 / parts as f32)
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
