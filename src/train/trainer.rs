//! The training loop.

mod course;
mod feed;
mod late;
mod passes;
mod reduction;
mod sync_norm;
mod window;

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::data::prefetch::{self, PrefetchLimits, Queue};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::memory::{Event, Phase, Role};
use crate::models::{Architecture, Network};
use crate::nn::Parameters;
use crate::nn::optim::Optimizer;
use crate::ops::first_not_finite;
use crate::rng::Rng;
use crate::tensor::Tensor;
use crate::train::case_source::CaseSource;
use crate::train::costs::Costs;
use crate::train::cuda_graph::StepGraph;
use crate::train::ema::Ema;
use crate::train::micro_batches::MicroBatches;
use crate::train::ranks::Ranks;
use crate::train::settings::TrainSettings;
pub use course::History;
use feed::{Drawn, Feed, Given};
use late::Late;
pub use window::PREFETCH;
use window::WHEN_NEEDED;

/// The memory events of one step are kept, the first from this one (from 0) on: everything that lives across steps then
/// exists.
const RECORDED_STEP: u64 = 1;

/// Steps of a process before batches are drawn ahead.
const MEASURED_STEPS: u64 = 2;

/// A network in training.
pub struct Trainer {
    device: Device,
    network: Box<dyn Network>,
    parameters: Parameters,
    optimizer: Optimizer,
    average: Option<Ema>,
    /// What the run was told.
    asked: TrainSettings,
    /// What it goes by: the same until something does not fit.
    settings: TrainSettings,
    history: History,
    costs: Costs,
    events: Vec<Event>,
    prefetch_bytes: u64,
    waited: Duration,
    /// Time of this process's steps.
    spent: Duration,
    /// Time of its validations.
    validating: Duration,
    graph: Option<InGraph>,
    feed: Feed,
    /// Of a trainer that reads losses late.
    late: Option<Late>,
    ranks: Ranks,
    /// A rank was asked to stop.
    stopping: bool,
}

/// Where a trainer's batches come from; none after the last.
type NextBatch<'f, 'a> = dyn FnMut(&mut Trainer) -> Option<Result<Given<'a>>> + 'f;

/// What a trainer holds whose passes are launched as CUDA graphs.
struct InGraph {
    replay: StepGraph,
    /// Of the last pass, one element.
    loss: Tensor,
}

impl Trainer {
    /// A fresh network and optimiser on `device`.
    ///
    /// # Errors
    /// An impossible configuration, a precision that the network does not compute in, or no memory.
    pub fn new(device: &Device, architecture: &dyn Architecture, settings: TrainSettings) -> Result<Self> {
        let mut parameters = Parameters::new(device);
        let mut network = architecture.build(&mut parameters, &mut Rng::named(settings.seed, "weights"))?;
        settings.recompute.choices(&architecture.units())?;
        network.set_recompute(settings.recompute);
        network.set_precision(settings.precision);
        if network.precision() != settings.precision {
            let (title, own) = (architecture.title(), network.precision());
            return Err(Error::Usage(format!("{title} computes in {own} only; choose that precision")));
        }
        let optimizer = Optimizer::new(settings.optimizer, &parameters)?;
        let average = settings.average_decay.map(|decay| Ema::new(decay, &parameters)).transpose()?;
        let late = Late::of(device, &settings)?;
        device.ledger(|ledger| ledger.reset_peak());
        Ok(Self {
            device: device.clone(),
            network,
            parameters,
            optimizer,
            average,
            asked: settings.clone(),
            settings,
            history: History::default(),
            costs: Costs::default(),
            events: Vec::new(),
            prefetch_bytes: 0,
            waited: Duration::ZERO,
            spent: Duration::ZERO,
            validating: Duration::ZERO,
            graph: None,
            feed: Feed::default(),
            late,
            ranks: Ranks::alone(),
            stopping: false,
        })
    }

    /// From now on takes the part of this process in the steps of `ranks`, for whose number the settings are divided
    /// ([`TrainSettings::divided`]). What checkpoints say is what the run was `asked`.
    pub fn join(&mut self, ranks: &Ranks, asked: TrainSettings) {
        (self.ranks, self.asked) = (ranks.clone(), asked);
    }

    /// The processes of the run.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The network.
    pub fn network(&self) -> &dyn Network {
        &*self.network
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
    pub fn average(&self) -> Option<&Ema> {
        self.average.as_ref()
    }

    /// The averaged weights, for loading.
    pub fn average_mut(&mut self) -> Option<&mut Ema> {
        self.average.as_mut()
    }

    /// Starts the average anew at the present weights, as after loading some.
    ///
    /// # Errors
    /// No memory.
    pub fn restart_average(&mut self) -> Result<()> {
        self.average = self.settings.average_decay.map(|decay| Ema::new(decay, &self.parameters)).transpose()?;
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

    /// What the run was told: what its checkpoints say, and what a run that goes on from them must be told.
    pub fn asked(&self) -> &TrainSettings {
        &self.asked
    }

    /// What the run goes by.
    pub fn settings(&self) -> &TrainSettings {
        &self.settings
    }

    /// Goes by settings that need less memory from the next step on: a higher level of recomputation, fewer points, smaller
    /// passes.
    pub fn go_on_with(&mut self, settings: TrainSettings) {
        self.network.set_recompute(settings.recompute);
        self.settings = settings;
        self.events.clear();
    }

    /// True if a step that did not fit has left nothing behind. Passes that are launched as graphs update the running
    /// statistics each by itself: those of a step's first passes are not undone.
    pub fn can_go_on(&self) -> bool {
        self.graph.is_none() || self.accumulate() == 1
    }

    /// Draws batches on other threads, ahead of their use, as far as `bytes` bytes allow (two batches at least); 0: draws
    /// each when it is needed, as a new trainer does. The results are the same.
    pub fn set_prefetch(&mut self, bytes: u64) {
        self.prefetch_bytes = bytes;
    }

    /// From now on launches forward and backward passes as CUDA graphs. Gradients then keep their memory between steps; the
    /// results are the same.
    ///
    /// # Errors
    /// [`Error::Usage`] if the device is no CUDA device or the network drops out values at random; no memory for the loss.
    pub fn use_graphs(&mut self) -> Result<()> {
        if !matches!(self.device.target(), Target::Cuda(_)) {
            return Err(Error::Usage("--graph needs a CUDA device; omit it on the CPU".into()));
        }
        if self.settings.ranks > 1 || self.settings.deterministic_reduce || self.joins_statistics() {
            let why = "gradients and running statistics of several passes are put together outside of graphs, in order";
            return Err(Error::Usage(format!("--graph: {why}; omit it")));
        }
        if self.network.architecture().dropout() > 0.0 {
            let why = "dropout draws new numbers in every pass, and a CUDA graph repeats the same";
            return Err(Error::Usage(format!("--graph: {why}; omit it for this network")));
        }
        let loss = self.device.in_op("loss", || Tensor::zeros(&self.device, &[1], Role::Output))?;
        self.graph = Some(InGraph { replay: StepGraph::default(), loss });
        Ok(())
    }

    /// Memory events of one training step, once that step has been made in this process.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Steps an epoch over `cases` cases takes, at least one; the cases of an incomplete last step are dropped.
    pub fn steps_per_epoch(&self, cases: usize) -> u64 {
        (cases as u64 / self.settings.scans_per_step(cases)).max(1)
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
    /// no memory, or what `after` reports. The weights are those of the last whole step, and without memory so is all else
    /// (see [`Trainer::can_go_on`]): called again with smaller settings the run goes on.
    pub fn train(&mut self, cases: &dyn CaseSource, mut after: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if cases.is_empty() {
            return Err(Error::Model("there are no training cases".into()));
        }
        let total = self.total_steps(cases.len());
        let passes = self.passes(cases);
        // What a step needs is known once steps have been made: what is drawn ahead must not take it away.
        let done = self.optimizer.steps();
        let first = (done + MEASURED_STEPS).min(total);
        self.steps(&passes, done..first, WHEN_NEEDED, &mut after)?;
        let (window, _staging) = self.window(passes.bytes());
        self.steps(&passes, first..total, window, &mut after)
    }

    /// Makes steps, whose batches are drawn within `window`.
    fn steps(
        &mut self,
        passes: &MicroBatches<'_>,
        steps: Range<u64>,
        window: PrefetchLimits,
        after: &mut impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let (numbers, total) = (passes.of_steps(steps.clone()), self.total_steps(passes.cases.len()));
        let device = self.device.clone();
        let draw = |pass| passes.draw_own(pass).and_then(|host| Drawn::new(&device, host));
        let made = prefetch::ahead(numbers, window, draw, |queue| {
            while self.optimizer.steps() < steps.end {
                let told = || format!("{} of {total} steps are done", self.optimizer.steps());
                match self.ranks.are_several() {
                    // The ranks have told each other in the last step.
                    true if self.stopping => return self.ranks.end_together(Error::Interrupted(told())),
                    true => {}
                    false => interrupt::check(told)?,
                }
                self.step(queue, passes.per_epoch, total)?;
                if self.optimizer.steps().is_multiple_of(passes.per_epoch) {
                    self.check_replicas()?;
                }
                after(self)?;
            }
            Ok(())
        });
        self.feed.forget();
        self.catch_up()?;
        made
    }

    /// The passes over `cases`, whatever step they are of.
    fn passes<'a>(&self, cases: &'a dyn CaseSource) -> MicroBatches<'a> {
        MicroBatches {
            supervision: self.network.architecture().supervision(),
            settings: self.settings.clone(),
            cases,
            size: self.batch_size(cases.len()),
            parts: self.accumulate(),
            share: (self.ranks.rank(), self.settings.ranks.max(1)),
            per_epoch: self.steps_per_epoch(cases.len()),
        }
    }

    /// Takes some steps whatever the number of epochs, for a plan's sake.
    ///
    /// # Errors
    /// As [`Trainer::train`].
    pub fn dry_run(&mut self, cases: &dyn CaseSource, steps: u64) -> Result<()> {
        let (passes, per_epoch) = (self.passes(cases), self.steps_per_epoch(cases.len()));
        let device = self.device.clone();
        let draw = |pass| passes.draw_own(pass).and_then(|host| Drawn::new(&device, host));
        let done = self.optimizer.steps();
        prefetch::ahead(passes.of_steps(done..done + steps), WHEN_NEEDED, draw, |queue| {
            (0..steps).try_for_each(|_| self.step(queue, per_epoch, steps))
        })
    }

    /// Checks that weights, running statistics and the optimiser's state are worth keeping.
    ///
    /// # Errors
    /// [`Error::NotFinite`] naming the first that is not finite.
    pub fn check_weights(&self) -> Result<()> {
        let weights = self.parameters.iter().map(|parameter| (parameter.name(), parameter.value()));
        let statistics = self.parameters.buffers().map(|(name, value, _)| (name, value));
        let averages = self.average().map_or(&[][..], |average| average.weights()).iter();
        let averages = averages.map(|average| ("an averaged weight", average));
        let state = self.optimizer.state().iter().map(|state| ("the optimiser's state", state));
        let (names, kept): (Vec<&str>, Vec<&Tensor>) = weights.chain(statistics).chain(averages).chain(state).unzip();
        match first_not_finite(&self.device, &kept)? {
            None => Ok(()),
            Some(i) => {
                let (what, step) = ("what is to be saved".into(), self.optimizer.steps());
                Err(Error::NotFinite { what, step, op: names[i].into() })
            }
        }
    }

    fn step(&mut self, queue: &mut Queue<'_, Result<Drawn>>, per_epoch: u64, total: u64) -> Result<()> {
        let started = Instant::now();
        let step = self.optimizer.steps();
        let recorded = step >= RECORDED_STEP && self.events.is_empty();
        if recorded {
            self.device.ledger(|ledger| ledger.record(true));
        }
        let factor = self.rate_factor(step, per_epoch, total);
        let made = match self.first_batch(queue) {
            Err(error) => self.take_no_part(error),
            Ok(foreseen) => {
                let (device, number) = (self.device.clone(), self.costs.step_seconds.len());
                device.place_ahead(&foreseen, number, || {
                    self.take(factor, &mut |trainer| {
                        Some(trainer.next_batch(queue)?.map(|drawn| Given::Own(Box::new(drawn))))
                    })
                })
            }
        };
        let events = recorded.then(|| {
            self.device.ledger(|ledger| {
                let events = ledger.take_events();
                ledger.record(false);
                events
            })
        });
        let loss = match made {
            Ok(loss) => loss,
            Err(error) => {
                self.forget_step();
                // Of the step before.
                self.catch_up()?;
                return Err(error);
            }
        };
        self.events = events.unwrap_or_else(|| std::mem::take(&mut self.events));
        if self.late.is_none() {
            self.history.losses.push(loss);
        }
        self.spent += started.elapsed();
        self.costs.step_seconds.push(started.elapsed().as_secs_f32());
        let (peak, activations) = self.device.ledger(|ledger| (ledger.peak(), ledger.peak_activations()));
        self.costs.note_peak(&peak, activations);
        self.costs.recompute = Some(self.settings.recompute);
        self.device.read_profile()
    }

    /// A step on the batches that `next` gives; the loss, unless that is read late.
    fn take<'a>(&mut self, factor: f32, next: &mut NextBatch<'_, 'a>) -> Result<f32> {
        let loss = self.gradients(next)?;
        self.update(factor)?;
        Ok(loss)
    }

    /// Moves the weights, for which no memory is asked any more.
    fn update(&mut self, factor: f32) -> Result<()> {
        let guard = self.late.as_ref().map(|late| &late.guard);
        self.optimizer.guarded_step(&mut self.parameters, factor, guard)?;
        let step = self.optimizer.steps();
        self.device.in_phase(Phase::Optimizer, || {
            if self.graph.is_none() {
                self.parameters.clear_gradients();
            }
            let average = self.average.as_mut();
            average.map_or(Ok(()), |average| average.guarded_update(&self.parameters, step, guard))
        })
    }

    /// After a step that failed: what it has left of its gradients and its batches goes, and its peak does not count.
    fn forget_step(&mut self) {
        self.parameters.clear_gradients();
        self.feed.forget();
        self.forget_losses();
        if let Some(graph) = &mut self.graph {
            graph.replay = StepGraph::default();
        }
        self.device.ledger(|ledger| ledger.reset_peak());
    }

    /// What the rates are multiplied by in step `step` (from 0) of `total`.
    fn rate_factor(&self, step: u64, per_epoch: u64, total: u64) -> f32 {
        self.settings.schedule.factor(step / per_epoch, step as f32 / total.max(1) as f32)
    }

    /// The learning rate of the weights in step `step` (from 1) over `cases` cases.
    pub fn rate(&self, step: u64, cases: usize) -> f32 {
        let step = step.saturating_sub(1);
        self.settings.optimizer.rate * self.rate_factor(step, self.steps_per_epoch(cases), self.total_steps(cases))
    }
}
