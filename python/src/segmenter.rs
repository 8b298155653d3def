//! Checkpoints, ready for scans.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray2, PyReadonlyArrayDyn};
use ossnet::checkpoint::folder;
use ossnet::checkpoint::model::{self, Model};
use ossnet::data::{Axes, Volume};
use ossnet::device::Device;
use ossnet::infer::{self, Ensemble, Search, SegmenterOptions, SlidingWindow};
use ossnet::memory::default_cpu_budget;
use ossnet::text::plural;
use ossnet::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{affine, geometry, in_memory, shape, way_back};
use crate::plans::precision;
use crate::running::{check_threads, run, usage};
use crate::words::in_python;

/// Labels, probabilities if they were wanted, and facts, as Python sees them.
type Answer<'py> = (Bound<'py, PyArray1<u8>>, Option<Bound<'py, PyArray1<f32>>>, Bound<'py, PyDict>);

/// Networks with their weights and their task; of several, probabilities are averaged. One scan at a time: the device's ledger
/// knows one phase.
#[pyclass(frozen, module = "ossnet._ossnet")]
pub struct Segmenter {
    models: Mutex<Vec<Model>>,
    title: String,
    files: Vec<PathBuf>,
    channels: Vec<String>,
    classes: Vec<(u8, String)>,
    axes: Axes,
    at_points: bool,
    outputs: usize,
}

/// How a scan is segmented, under the package's names.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    probabilities: bool,
    dense: bool,
    threshold: Option<f32>,
    window: Option<[usize; 3]>,
    overlap: f64,
    mirror: bool,
    points_at_once: usize,
}

impl Asked {
    fn options(&self, usual: &SegmenterOptions) -> SegmenterOptions {
        let search = if self.dense || self.probabilities { Search::dense() } else { usual.search.clone() };
        SegmenterOptions {
            search,
            windows: SlidingWindow { size: self.window, overlap: self.overlap, mirror: self.mirror },
            threshold: self.threshold.unwrap_or(usual.threshold),
            most_points: self.points_at_once,
            probabilities: self.probabilities,
            ..usual.clone()
        }
    }

    /// Refuses what says nothing to the network, as the command does.
    fn check(&self, network: &Segmenter) -> PyResult<()> {
        let [points, dense] = ["occupancy networks", "U-Nets"];
        let one = "networks with one output";
        let given = [
            ("window", self.window.is_some(), !network.at_points, dense),
            ("mirror", self.mirror, !network.at_points, dense),
            ("points_at_once", self.points_at_once > 0, network.at_points, points),
            ("threshold", self.threshold.is_some(), network.outputs == 1, one),
        ];
        if let Some((name, .., whose)) = given.into_iter().find(|(_, given, known, _)| *given && !known) {
            let network = format!("this is {} with {}", network.title, plural(network.outputs, "output"));
            return Err(usage(format!("only {whose} know {name}, and {network}; omit it")));
        }
        match self.threshold {
            Some(threshold) if !(0.0..=1.0).contains(&threshold) => {
                Err(usage(format!("threshold {threshold} is no probability; give for example 0.5")))
            }
            _ => Ok(()),
        }
    }
}

#[pymethods]
impl Segmenter {
    #[new]
    fn new(
        py: Python<'_>,
        checkpoints: Vec<PathBuf>,
        device: &str,
        threads: usize,
        budget: Option<u64>,
        precision: &str,
    ) -> PyResult<Self> {
        let cuda = match device.split_once(':') {
            None if device == "cpu" => None,
            None if device == "cuda" => Some(0),
            Some(("cuda", number)) if number.parse::<usize>().is_ok() => number.parse().ok(),
            _ => return Err(usage(format!("'{device}' is no device; give cpu, cuda or cuda:1"))),
        };
        check_threads(threads)?;
        let precision = self::precision(precision)?;
        run(py, |tick| {
            let device = match cuda {
                None => Device::cpu(threads, budget.unwrap_or_else(default_cpu_budget))?,
                // 0 stands for what is free.
                Some(ordinal) => Device::cuda(ordinal, budget.unwrap_or(0))?,
            };
            precision.check(device.target(), "device='cuda'")?;
            let files = folder::files(&checkpoints)?;
            let mut models = Vec::new();
            for file in &files {
                tick()?;
                let mut model = model::load(&device, file)?;
                model.network.set_precision(precision);
                models.push(model);
            }
            let Some((first, others)) = models.split_first() else {
                return Err(Error::Usage("checkpoint names no file; give one, or a run's folder".into()));
            };
            let fits = |(other, file): (&Model, &PathBuf)| match first.task.mismatch(&other.task) {
                None => Ok(()),
                Some(problem) => {
                    let problem = format!("{problem} as {} does", files[0].display());
                    let remedy = "average checkpoints of one data set and one choice of classes";
                    Err(Error::data(file, problem, remedy))
                }
            };
            others.iter().zip(files.iter().skip(1)).try_for_each(fits)?;
            let (architecture, preprocessing) = (first.network.architecture(), &first.task.preprocessing);
            let name = |class: usize, value: u8| {
                first.task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"))
            };
            let title = architecture.title();
            Ok(Self {
                title: if others.is_empty() { title } else { format!("{title} (mean of {} checkpoints)", files.len()) },
                channels: preprocessing.channels.clone(),
                classes: preprocessing.classes.iter().enumerate().map(|(i, &value)| (value, name(i, value))).collect(),
                axes: preprocessing.axes,
                at_points: architecture.supervision().at_points(),
                outputs: architecture.classes(),
                files,
                models: Mutex::new(models),
            })
        })
    }

    /// The network's name.
    #[getter]
    fn model(&self) -> &str {
        &self.title
    }

    /// The files of its weights.
    #[getter]
    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    /// The image channels that it takes.
    #[getter]
    fn channels(&self) -> Vec<String> {
        self.channels.clone()
    }

    /// Label value and name of each class, background first.
    #[getter]
    fn classes(&self) -> Vec<(u8, String)> {
        self.classes.clone()
    }

    /// Labels, probabilities (or `None`), both flat, and what the package makes arrays of them with.
    fn segment<'py>(
        &self,
        py: Python<'py>,
        array: PyReadonlyArrayDyn<'py, f32>,
        matrix: PyReadonlyArray2<'py, f64>,
        asked: Asked,
    ) -> PyResult<Answer<'py>> {
        let (stored, channels) = shape(&array, "array", true)?;
        let geometry = geometry(affine(&matrix)?, stored, self.axes == Axes::Canonical);
        let orientation = geometry.orientation;
        let voxels = in_memory(array.as_array(), &orientation);
        if let Some(at) = voxels.iter().position(|value| !value.is_finite()) {
            let problem = format!("array holds {} (first at voxel {} in memory)", voxels[at], at / channels);
            return Err(usage(format!("{problem}; replace what is not finite, for example by numpy.nan_to_num")));
        }
        let image = Volume { channels, shape: orientation.shape(stored), voxels, geometry };
        asked.check(self)?;
        let (found, warning) = run(py, |tick| {
            // A panic in another thread leaves weights as they were.
            let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
            let member = |model| member(model, &asked);
            let first = models.first().ok_or_else(|| Error::Usage("there is no network; report this".into()))?;
            first.task.check("array", &image)?;
            let warning = first.task.preprocessing.unusual_spacing(image.shape, &image.geometry)?;
            let others = models[1..].iter().map(member).collect::<Result<Vec<_>>>()?;
            Ok((Ensemble::new(member(first)?, others)?.segment("array", image, tick)?, warning))
        })?;
        let (axes, flips) = way_back(&orientation);
        let facts = PyDict::new(py);
        facts.set_item("shape", found.labels.shape)?;
        facts.set_item("axes", axes)?;
        facts.set_item("flips", flips)?;
        facts.set_item("evaluated", found.evaluated)?;
        facts.set_item("seconds", found.seconds)?;
        facts.set_item("peak_bytes", found.peak_bytes)?;
        facts.set_item("warning", warning.map(|warning| in_python(&warning)))?;
        let probabilities = found.probabilities.map(|volume| volume.voxels.into_pyarray(py));
        Ok((found.labels.voxels.into_pyarray(py), probabilities, facts))
    }
}

/// A network with what is asked of it.
fn member<'m>(model: &'m Model, asked: &Asked) -> Result<infer::Segmenter<'m>> {
    let options = asked.options(&SegmenterOptions::of(model.network.architecture()));
    infer::Segmenter::new(&*model.network, &model.parameters, &model.task, options)
}
