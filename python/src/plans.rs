//! What steps cost: the planner's questions.

use numpy::{PyArray1, ToPyArray};
use ossnet::Result;
use ossnet::device::{CudaTarget, Device, Target, UNLIMITED};
use ossnet::memory::format_bytes;
use ossnet::models::Recompute;
use ossnet::planner::curves::sides;
use ossnet::planner::fit::{answers, best_answers};
use ossnet::planner::gpus::{GPUS, Speed};
use ossnet::planner::roofline::{LAUNCH, models};
use ossnet::planner::{StepCost, Workload, json, remedies, sweep as sweeps, this_cpu};
use ossnet::quantities::parse_bytes;
use ossnet::tape::Precision;
use ossnet::train::dry_run::{StepKind, StepSizes};
use pyo3::prelude::*;
use pythonize::pythonize;
use serde::Deserialize;
use serde_json::Value;

use crate::running::{run, usage};

/// What is done in a step, with the names that the Python package gives it.
#[derive(Deserialize)]
pub struct Step {
    volume: [usize; 3],
    points: Option<usize>,
    batch: usize,
    step: String,
    precision: Precision,
    device: String,
    threads: usize,
}

impl Step {
    fn read(step: &Bound<'_, PyAny>) -> PyResult<Self> {
        let read: Self = pythonize::depythonize(step).map_err(|error| usage(error.to_string()))?;
        let sides = read.volume.iter().all(|side| (1..=1 << 16).contains(side));
        let numbers = [("points", read.points.unwrap_or(1), 1 << 32), ("batch", read.batch, 1 << 16)];
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
        let sizes = StepSizes { step, precision: self.precision, ..StepSizes::new(self.volume, self.batch, points) };
        self.precision.check(self.target()?.0, "device='cuda'").map_err(crate::running::exception)?;
        Workload::official(model, sizes).map_err(crate::running::exception)
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

fn level(recompute: u8) -> PyResult<Recompute> {
    Recompute::try_from(recompute).map_err(crate::running::exception)
}

/// The levels that are asked for; all that `workloads` have if none is named.
fn levels(recompute: Option<u8>, workloads: &[Workload]) -> PyResult<Vec<Recompute>> {
    match recompute {
        Some(number) => Ok(vec![level(number)?]),
        None => Ok(workloads.iter().map(Workload::levels).max_by_key(Vec::len).unwrap_or_default()),
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
    recompute: u8,
    budget: Option<u64>,
) -> PyResult<Planned<'py>> {
    let step = Step::read(step)?;
    let workload = step.workload(model)?.with_recompute(level(recompute)?);
    let (target, speed) = step.target()?;
    let budget = budget.unwrap_or(UNLIMITED);
    let (value, live, seconds) = run(py, |_| {
        workload.check()?;
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

/// Curves over cubes.
#[pyfunction]
pub fn sweep<'py>(
    py: Python<'py>,
    names: Vec<String>,
    range: (usize, usize),
    step: &Bound<'py, PyAny>,
    recompute: Option<u8>,
) -> PyResult<Bound<'py, PyAny>> {
    let (low, high) = range;
    if !(16 <= low && low <= high && high <= 4096) {
        return Err(usage(format!("sides ({low}, {high}) are no range from 16 to 4096")));
    }
    let step = Step::read(step)?;
    let workloads = names.iter().map(|name| step.workload(name)).collect::<PyResult<Vec<_>>>()?;
    if workloads.is_empty() {
        return Err(usage("models names no model; give for example ['oss-net-c', 'unet3d']"));
    }
    let (target, levels) = (step.target()?.0, levels(recompute, &workloads)?);
    let value = run(py, |tick| {
        let mut found = Vec::new();
        for level in levels {
            tick()?;
            found.push(sweeps::sweep(&workloads, level, target, &sides(low, high))?);
        }
        json::sweep(&workloads, &found, target)
    })?;
    Ok(pythonize(py, &value)?)
}

/// The largest that fits so many bytes (`8GiB`), or each of the well-known GPUs (`gpus`).
#[pyfunction]
pub fn fit<'py>(
    py: Python<'py>,
    model: &str,
    room: &str,
    step: &Bound<'py, PyAny>,
    recompute: Option<u8>,
) -> PyResult<Bound<'py, PyAny>> {
    let step = Step::read(step)?;
    let workload = step.workload(model)?;
    let levels = levels(recompute, std::slice::from_ref(&workload))?;
    let (target, bytes) =
        (step.target()?.0, if room == "gpus" { None } else { Some(parse_bytes(room).map_err(usage)?) });
    let value = run(py, |_| {
        let fits = match bytes {
            Some(bytes) => vec![json::fit(&format_bytes(bytes), bytes, &answers(&workload, &levels, target, bytes)?)],
            None => {
                let found = best_answers(&workload, &levels, target, &GPUS.map(|gpu| gpu.usable()))?;
                GPUS.iter().zip(found).map(|(gpu, found)| json::fit(&gpu.title(), gpu.usable(), &found)).collect()
            }
        };
        Ok::<Value, ossnet::Error>(serde_json::json!({ "model": workload.network.title(), "fits": fits }))
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
