//! What steps cost: the planner's questions.

use numpy::{PyArray1, ToPyArray};
use ossnet::device::{CudaTarget, Device, Target, UNLIMITED};
use ossnet::memory::format_bytes;
use ossnet::models::{Recompute, RecomputeChoice};
use ossnet::planner::curves::point;
use ossnet::planner::fit::{answers, best_answers};
use ossnet::planner::gpus::{GPUS, Speed};
use ossnet::planner::roofline::{LAUNCH, models};
use ossnet::planner::schedules::fastest;
use ossnet::planner::{StepCost, Workload, json, remedies, sweep as sweeps, this_cpu};
use ossnet::quantities::parse_bytes;
use ossnet::tape::Precision;
use ossnet::train::dry_run::{StepKind, StepSizes};
use ossnet::{Error, Result};
use pyo3::prelude::*;
use pythonize::pythonize;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::running::{exception, run, usage};

/// What is done in a step, with the names that the Python package gives it.
#[derive(Deserialize)]
pub struct Step {
    volume: [usize; 3],
    points: Option<usize>,
    batch: usize,
    channels: usize,
    outputs: usize,
    step: String,
    precision: String,
    device: String,
    threads: usize,
}

impl Step {
    fn read(step: &Bound<'_, PyAny>) -> PyResult<Self> {
        let read: Self = pythonize::depythonize(step).map_err(|error| usage(error.to_string()))?;
        let sides = read.volume.iter().all(|side| (1..=1 << 16).contains(side));
        let numbers = [
            ("points", read.points.unwrap_or(1), 1 << 32),
            ("batch", read.batch, 1 << 16),
            ("channels", read.channels, 1 << 10),
            ("outputs", read.outputs, 1 << 8),
        ];
        match numbers.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            _ if !sides => Err(usage(format!("volume {:?} must have sides from 1 to 65536", read.volume))),
            Some((name, value, most)) => Err(usage(format!("{name} {value} must be from 1 to {most}"))),
            None => Ok(read),
        }
    }

    fn kind(&self) -> PyResult<StepKind> {
        match self.step.as_str() {
            "train" => Ok(StepKind::Train),
            "eval" => Ok(StepKind::Evaluate),
            "infer" => Ok(StepKind::Infer),
            other => Err(usage(format!("step '{other}' is none of train, eval and infer"))),
        }
    }

    fn workload(&self, model: &str) -> PyResult<Workload> {
        let step = self.kind()?;
        let points = self.points.unwrap_or(if step == StepKind::Train { 16384 } else { 0 });
        let precision = precision(&self.precision)?;
        let sizes = StepSizes { step, precision, ..StepSizes::new(self.volume, self.batch, points) };
        precision.check(self.target()?.0, "device='cuda'").map_err(exception)?;
        Ok(Workload::official(model, sizes).map_err(exception)?.with_data(self.channels, self.outputs))
    }

    /// As [`Step::workload`], of a network that has points if any are asked for.
    fn of_one(&self, model: &str) -> PyResult<Workload> {
        let workload = self.workload(model)?;
        match self.points.is_some() && !workload.has_points() {
            true => Err(usage(format!("points says nothing to {model}, which is trained on voxels; omit it"))),
            false => Ok(workload),
        }
    }

    /// The workloads of some models, each named once.
    fn workloads(&self, models: &[String]) -> PyResult<Vec<Workload>> {
        let mut all: Vec<Workload> = Vec::new();
        for name in models {
            let next = self.workload(name)?;
            if all.iter().any(|known| known.network.slug() == next.network.slug()) {
                return Err(usage(format!("models names {name} twice; name each model once")));
            }
            all.push(next);
        }
        match all.is_empty() {
            true => Err(usage("models names no model; give for example ['oss-net-c', 'unet3d']")),
            false => Ok(all),
        }
    }

    /// What is planned for, and the GPU if it is one that is known by name.
    fn target(&self) -> PyResult<(Target, Option<Speed>)> {
        match self.device.as_str() {
            "cpu" => Ok((this_cpu(self.threads), None)),
            "cuda" => Ok((Target::Cuda(CudaTarget::KNOWN[0].1), None)),
            name => match CudaTarget::named(name) {
                Some(target) => Ok((Target::Cuda(target), None)),
                None => {
                    let speed =
                        Speed::named(name).map_err(|problem| usage(format!("{problem}, or cpu, cuda, sm_90")))?;
                    Ok((Target::Cuda(speed.target), Some(speed)))
                }
            },
        }
    }
}

/// A number format by its name.
pub fn precision(name: &str) -> PyResult<Precision> {
    let known = [Precision::F32, Precision::Tf32, Precision::Bf16];
    let found = known.into_iter().find(|precision| precision.to_string() == name);
    found.ok_or_else(|| usage(format!("precision '{name}' is none of f32, tf32 and bf16")))
}

fn choice(recompute: &str) -> PyResult<RecomputeChoice> {
    recompute.parse().map_err(usage)
}

/// The levels that are asked for; all that `workloads` have if none is named.
fn levels(choice: Option<RecomputeChoice>, workloads: &[Workload]) -> Vec<Recompute> {
    match choice {
        Some(RecomputeChoice::Level(level)) => vec![level],
        Some(RecomputeChoice::Auto) | None => {
            workloads.iter().map(Workload::levels).max_by_key(Vec::len).unwrap_or_default()
        }
    }
}

/// The command's value, the bytes that live after each allocation and release, and the seconds at best on a GPU that is
/// known by name.
type Planned<'py> = (Bound<'py, PyAny>, Bound<'py, PyArray1<u64>>, Option<f64>);

/// One step.
#[pyfunction]
pub fn plan<'py>(
    py: Python<'py>,
    model: &str,
    step: &Bound<'py, PyAny>,
    recompute: &str,
    budget: Option<u64>,
) -> PyResult<Planned<'py>> {
    let step = Step::read(step)?;
    let (mut workload, choice) = (step.of_one(model)?, choice(recompute)?);
    let (target, speed) = step.target()?;
    let budget = budget.unwrap_or(UNLIMITED);
    let (value, live, seconds) = run(py, |_| {
        workload.check()?;
        workload = match choice {
            RecomputeChoice::Level(level) => workload.with_recompute(level),
            RecomputeChoice::Auto if workload.sizes.step == StepKind::Train => {
                fastest(&workload, target, budget, || workload.schedules(target))?
            }
            RecomputeChoice::Auto => workload,
        };
        let seconds = match speed {
            Some(speed) => Some(models(&workload, &speed, LAUNCH)?[0].seconds()),
            None => None,
        };
        let device = Device::plan_for(target, budget);
        let cost = workload.dry_run(&device, 2).map_err(|error| remedies::explain(error, &workload, target, budget))?;
        let live: Vec<u64> = cost.events.iter().map(|event| event.live.total()).collect();
        let answer = StepCost::of(workload, device, cost, None)?;
        Ok((json::step(&answer), live, seconds))
    })?;
    Ok((pythonize(py, &value)?, live.to_pyarray(py), seconds))
}

/// Curves over cubes of these sides.
#[pyfunction]
pub fn sweep<'py>(
    py: Python<'py>,
    models: Vec<String>,
    sides: Vec<usize>,
    step: &Bound<'py, PyAny>,
    recompute: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (workloads, target, levels) = of_sweep(&models, step, recompute)?;
    let value = run(py, |tick| {
        let mut found = Vec::new();
        for level in levels {
            tick()?;
            found.push(sweeps::sweep(&workloads, level, target, &sides)?);
        }
        let without = found.iter().flat_map(|sweep| &sweep.curves).find(|curve| curve.points.is_empty());
        without.map_or(Ok(()), |curve| Err(nothing_admitted(&curve.name)))?;
        json::sweep(&workloads, &found, target)
    })?;
    Ok(pythonize(py, &value)?)
}

/// What volumes of these shapes cost, in the form of a sweep. Nothing was recorded of such volumes, and no curves cross.
#[pyfunction]
pub fn sweep_shapes<'py>(
    py: Python<'py>,
    models: Vec<String>,
    shapes: Vec<[usize; 3]>,
    step: &Bound<'py, PyAny>,
    recompute: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (workloads, target, levels) = of_sweep(&models, step, recompute)?;
    let value = run(py, |tick| {
        let mut found = Vec::new();
        for &level in &levels {
            let mut curves = Vec::new();
            for workload in &workloads {
                let (name, mut points) = (workload.network.title(), Vec::new());
                for &shape in &shapes {
                    tick()?;
                    let workload = workload.with_recompute(level).with_volume(shape);
                    points.extend(point(&workload, target)?.map(|point| {
                        json!({
                            "volume": shape,
                            "peak_activation_bytes": point.peak_activations,
                            "peak_bytes": point.peak_bytes,
                            "reserved_bytes": point.reserved,
                            "parameters": point.parameters,
                        })
                    }));
                }
                if points.is_empty() {
                    return Err(nothing_admitted(&name));
                }
                curves.push(json!({ "model": name, "points": points }));
            }
            found.push(json!({ "recompute": level, "curves": curves, "recorded": [], "crossings": [] }));
        }
        let slopes_at = levels.into_iter().map(|recompute| sweeps::Sweep {
            recompute,
            curves: Vec::new(),
            recorded: Vec::new(),
            meetings: Vec::new(),
        });
        let mut value = json::sweep(&workloads, &slopes_at.collect::<Vec<_>>(), target)?;
        value["levels"] = found.into();
        Ok(value)
    })?;
    Ok(pythonize(py, &value)?)
}

/// What a sweep is of, for what, and at which levels.
fn of_sweep(
    models: &[String],
    step: &Bound<'_, PyAny>,
    recompute: Option<&str>,
) -> PyResult<(Vec<Workload>, Target, Vec<Recompute>)> {
    let (step, choice) = (Step::read(step)?, recompute.map(choice).transpose()?);
    if choice == Some(RecomputeChoice::Auto) {
        let problem = "recompute='auto' needs a budget, which a sweep has not";
        return Err(usage(format!("{problem}; name a level, or None for all")));
    }
    let workloads = step.workloads(models)?;
    let (target, levels) = (step.target()?.0, levels(choice, &workloads));
    Ok((workloads, target, levels))
}

fn nothing_admitted(model: &str) -> Error {
    Error::Usage(format!("sides has nothing that {model} admits; take larger ones, multiples of 16 (or 32)"))
}

/// The largest that fits so many bytes (`8GiB`), or each of the well-known GPUs (`gpus`).
#[pyfunction]
pub fn fit<'py>(
    py: Python<'py>,
    model: &str,
    room: &str,
    step: &Bound<'py, PyAny>,
    recompute: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let step = Step::read(step)?;
    let workload = step.of_one(model)?;
    // The fastest that fits is what `best` says of all levels.
    let levels = levels(recompute.map(choice).transpose()?, std::slice::from_ref(&workload));
    let bytes = |text: &str| parse_bytes(text).map_err(|problem| usage(format!("room: {problem}, or gpus")));
    let (target, bytes) = (step.target()?.0, if room == "gpus" { None } else { Some(bytes(room)?) });
    let value = run(py, |_| {
        let fits = match bytes {
            Some(bytes) => vec![json::fit(&format_bytes(bytes), bytes, &answers(&workload, &levels, target, bytes)?)],
            None => {
                let found = best_answers(&workload, &levels, target, &GPUS.map(|gpu| gpu.usable()))?;
                GPUS.iter().zip(found).map(|(gpu, found)| json::fit(&gpu.title(), gpu.usable(), &found)).collect()
            }
        };
        Ok::<Value, ossnet::Error>(json!({ "model": workload.network.title(), "fits": fits }))
    })?;
    Ok(pythonize(py, &value)?)
}

/// A lower bound of a step's time on a GPU.
#[pyfunction]
pub fn roofline<'py>(
    py: Python<'py>,
    model: &str,
    step: &Bound<'py, PyAny>,
    launch: f64,
) -> PyResult<Bound<'py, PyAny>> {
    let step = Step::read(step)?;
    if !(launch.is_finite() && launch >= 0.0) {
        return Err(usage(format!("launch {launch} is no number of seconds; give 0 or more")));
    }
    let speed = Speed::named(&step.device).map_err(usage)?;
    let workload = step.workload(model)?;
    let value = run(py, |_| -> Result<Value> {
        workload.check()?;
        let [ours, peer] = models(&workload, &speed, launch)?;
        json::roofline(&workload, &speed, [&ours, &peer], None)
    })?;
    Ok(pythonize(py, &value)?)
}
