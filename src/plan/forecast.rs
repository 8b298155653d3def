//! What a run will cost in bytes: the trainer's own steps on a plan, on some of the run's own cases.

use std::sync::Arc;

use serde_json::{Value, json};

use super::phases::{self, Parts, RunPhase};
use crate::data::Dataset;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::Result;
use crate::infer::sliding_window::SLICES;
use crate::memory::Role;
use crate::models::{Architecture, NetworkConfig, RecomputeChoice};
use crate::planner::adjust::Adjustable;
use crate::planner::training::TrainingPlan;
use crate::planner::{HostOverhead, Workload};
use crate::task::PreparedCase;
use crate::train::case_source::reading_bytes;
use crate::train::costs::Costs;
use crate::train::dry_run::{StepKind, StepSizes};
use crate::train::settings::TrainSettings;
use crate::train::setup::Setup;
use crate::train::trainer::{PREFETCH, Trainer};

/// Steps of a plan: the second is like all that follow.
const STEPS: u64 = 2;

/// Cases that a plan reads at least: augmentation, patches and points are drawn from them as in the run.
const CASES: usize = 4;

/// A run's costs, planned. Two sums of bytes, never one: on a CUDA device they are two memories.
#[derive(Clone, Debug)]
pub struct RunForecast {
    /// The network's title.
    pub network: String,
    /// Whether it is trained on points.
    pub has_points: bool,
    /// Its trainable scalars.
    pub parameters: usize,
    /// How it is trained, the level of recomputation settled.
    pub settings: TrainSettings,
    /// Shape of one batch item.
    pub shape: [usize; 3],
    /// What the run's `costs.json` will say of bytes.
    pub costs: Costs,
    /// Bytes that the arena reserves for training steps, holes included.
    pub reserved: u64,
    /// Bytes that the segmentation of a case in the trained shape reserves, every voxel asked, network included; `None` without
    /// validation cases.
    pub validation: Option<u64>,
    /// Bytes beside the engine's.
    pub host: HostOverhead,
    /// True if the cases are held in memory; else they are read as they are needed.
    pub held: bool,
    /// The run from its first scan to its last checkpoint.
    pub phases: Vec<RunPhase>,
    /// Where it was planned for.
    pub target: Target,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
}

/// Some training cases as the run will see them, for plans and rehearsals.
///
/// # Errors
/// A case that cannot be read.
pub fn some_cases(setup: &Setup, dataset: &Dataset) -> Result<Vec<PreparedCase>> {
    let shape = setup.settings.patch.is_none().then_some(setup.shape);
    let count = CASES.max(setup.settings.batch_size).min(dataset.training.len());
    let read = |case| setup.task.prepare(dataset.read(case, setup.task.preprocessing.axes)?, shape);
    dataset.training[..count].iter().map(read).collect()
}

/// The level that `choice` names for the run of `setup`: the fastest that fits `budget` bytes on `target`, or the leanest.
///
/// # Errors
/// Cases that cannot be trained on.
pub fn settled(
    setup: &Setup,
    cases: &[PreparedCase],
    choice: RecomputeChoice,
    target: Target,
    budget: u64,
) -> Result<TrainSettings> {
    let plan = TrainingPlan {
        network: &setup.network,
        settings: setup.settings.clone(),
        cases: &cases,
        flags: true,
        graph: false,
    };
    Ok(plan.at(choice, &Device::plan_for(target, budget))?.settings)
}

/// True if a step with `settings` fits `budget` bytes on `target`, holes included.
///
/// # Errors
/// As [`settled`].
pub fn fits(
    setup: &Setup,
    settings: &TrainSettings,
    cases: &[PreparedCase],
    target: Target,
    budget: u64,
) -> Result<bool> {
    let settings = settings.clone();
    TrainingPlan { network: &setup.network, settings, cases: &cases, flags: true, graph: false }.fits(target, budget)
}

/// Plans the run of `setup` with `settings` on `target`; `budget` decides whether its cases are held in memory.
///
/// # Errors
/// Cases or sizes that cannot be trained on.
pub fn forecast(
    setup: &Setup,
    settings: TrainSettings,
    cases: &[PreparedCase],
    dataset: &Dataset,
    target: Target,
    budget: u64,
) -> Result<RunForecast> {
    let device = Device::plan_for(target, UNLIMITED);
    let mut trainer = Trainer::new(&device, &setup.network, settings.clone())?;
    trainer.dry_run(&cases, STEPS)?;
    let sizes = StepSizes {
        recompute: settings.recompute,
        precision: settings.precision,
        optimizer: settings.optimizer,
        ..StepSizes::new(setup.shape, settings.batch_size.min(cases.len()), settings.points)
    };
    let work = Workload { network: Arc::new(setup.network.clone()), sizes };
    let mut host = HostOverhead::of(&work, target)?;
    if settings.ranks > 1 {
        host = host.with_communicator(target);
    }
    let grid = setup.settings.patch.is_none().then_some(setup.shape);
    let (all, largest) = setup.task.held_bytes(dataset, grid.or(setup.grid.shape()))?;
    let held = all <= budget / 2;
    if held {
        host.cases = all;
    }
    let reading = reading_bytes(largest, setup.task.preprocessing.channels.len() as u64);
    trainer.set_prefetch(PREFETCH);
    host.staging = host.staging.max(trainer.batch_bytes(&cases, if held { 0 } else { reading }, budget));
    let (lasting, mut scoring) = (device.live(), HostOverhead::default());
    let validation = match dataset.validation.is_empty() {
        true => None,
        false => {
            let mut sizes = StepSizes { step: StepKind::Evaluate, batch: 1, points: 0, ..sizes };
            if let Some(axis) = setup.network.supervision().slice_axis() {
                // Some slices at a time; a plan's lie across the last axis.
                let [x, y, z] = setup.shape;
                sizes.batch = SLICES.min(setup.shape[axis]);
                sizes.volume = [[y, z, x], [x, z, y], [x, y, z]][axis];
            }
            let device = Device::plan_for(target, UNLIMITED);
            let work = Workload { sizes, ..work };
            scoring = HostOverhead::of(&work, target)?;
            Some(work.dry_run(&device, 1)?.reserved)
        }
    };
    let parts = Parts {
        host,
        scoring,
        held: if held { all } else { 0 },
        reading,
        steps: device.reserved(),
        largest: trainer.parameters().iter().map(|parameter| 4 * parameter.value().len() as u64).max().unwrap_or(0),
        lasting: lasting.total(),
        weights: lasting.get(Role::Parameter) + lasting.get(Role::NormBuffer),
        validation,
    };
    Ok(RunForecast {
        network: setup.network.title(),
        has_points: matches!(setup.network, NetworkConfig::OssNet(_)),
        parameters: trainer.parameters().count(),
        shape: setup.shape,
        costs: trainer.costs().clone(),
        reserved: device.reserved(),
        validation,
        host,
        held,
        phases: parts.phases(target),
        target,
        steps_per_epoch: trainer.steps_per_epoch(dataset.training.len()),
        settings,
    })
}

impl RunForecast {
    /// Bytes on the device: what training steps or one validation reserve, whichever is more, and on CUDA the context.
    pub fn device_bytes(&self) -> u64 {
        let engine = self.reserved.max(self.validation.unwrap_or(0));
        engine.saturating_add(self.host.on_device(self.target))
    }

    /// Bytes of the host beside the device's.
    pub fn host_bytes(&self) -> u64 {
        self.host.all_host(self.target)
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.settings.epochs.saturating_mul(self.steps_per_epoch)
    }

    /// Everything, under the names of `costs.json` where that has them.
    pub fn json(&self) -> Value {
        let settings = &self.settings;
        json!({
            "model": self.network,
            "parameters": self.parameters,
            "shape": self.shape,
            "batch": settings.batch_size,
            "accumulate": settings.accumulate,
            "points": settings.points,
            "recompute": settings.recompute,
            "precision": settings.precision,
            "epochs": settings.epochs,
            "steps": self.steps(),
            "planned_for": crate::planner::json::target_text(self.target),
            "peak_bytes": self.costs.peak_bytes,
            "peak_activations": self.costs.peak_activations,
            "peak_by_role": self.costs.peak_by_role,
            "peak_op": self.costs.peak_op,
            "reserved_bytes": self.reserved,
            "validation_reserved_bytes": self.validation,
            "phases": self.phases.iter().map(RunPhase::json).collect::<Vec<_>>(),
            "largest_phase": phases::largest(&self.phases, self.target).map(|phase| phase.name),
            "device_bytes": self.device_bytes(),
            "host_bytes": self.host_bytes(),
            "host": {
                "cases": self.host.cases,
                "cases_are_held": self.held,
                "staging": self.host.staging,
                "program": self.host.machinery(self.target),
            },
        })
    }
}
