//! A checkpoint, ready for scans.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray2, PyReadonlyArrayDyn};
use ossnet::checkpoint::model::{self, Model};
use ossnet::data::{Axes, Volume};
use ossnet::device::Device;
use ossnet::infer::{self, Search, SegmenterOptions, SlidingWindow};
use ossnet::memory::default_cpu_budget;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{affine, geometry, in_memory, shape, way_back};
use crate::running::{run, usage};

/// Labels, probabilities if they were wanted, and facts, as Python sees them.
type Answer<'py> = (Bound<'py, PyArray1<u8>>, Option<Bound<'py, PyArray1<f32>>>, Bound<'py, PyDict>);

/// A network with its weights and its task. One scan at a time: the device's ledger knows one phase.
#[pyclass(frozen, module = "ossnet._ossnet")]
pub struct Segmenter {
    model: Mutex<Model>,
    title: String,
    channels: Vec<String>,
    classes: Vec<(u8, String)>,
    axes: Axes,
    usual: SegmenterOptions,
}

/// How a scan is segmented, under the package's names.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    probabilities: bool,
    dense: bool,
    threshold: f32,
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
            threshold: self.threshold,
            most_points: self.points_at_once,
            probabilities: self.probabilities,
            ..usual.clone()
        }
    }
}

#[pymethods]
impl Segmenter {
    #[new]
    fn new(py: Python<'_>, checkpoint: PathBuf, device: &str, threads: usize, budget: Option<u64>) -> PyResult<Self> {
        let cuda = match device.split_once(':') {
            None if device == "cpu" => None,
            None if device == "cuda" => Some(0),
            Some(("cuda", number)) if number.parse::<usize>().is_ok() => number.parse().ok(),
            _ => return Err(usage(format!("'{device}' is no device; give cpu, cuda or cuda:1"))),
        };
        run(py, |_| {
            let device = match cuda {
                None => Device::cpu(threads, budget.unwrap_or_else(default_cpu_budget))?,
                // 0 stands for what is free.
                Some(ordinal) => Device::cuda(ordinal, budget.unwrap_or(0))?,
            };
            let model = model::load(&device, &checkpoint)?;
            let preprocessing = &model.task.preprocessing;
            let name = |class: usize, value: u8| {
                model.task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"))
            };
            Ok(Self {
                title: model.network.architecture().title(),
                channels: preprocessing.channels.clone(),
                classes: preprocessing.classes.iter().enumerate().map(|(i, &value)| (value, name(i, value))).collect(),
                axes: preprocessing.axes,
                usual: SegmenterOptions::of(model.network.architecture()),
                model: Mutex::new(model),
            })
        })
    }

    /// The network's name.
    #[getter]
    fn model(&self) -> &str {
        &self.title
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
        let options = asked.options(&self.usual);
        let (found, warning) = run(py, |tick| {
            // A panic in another thread leaves weights as they were.
            let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
            let Model { network, parameters, task } = &*model;
            task.check("array", &image)?;
            let warning = task.preprocessing.unusual_spacing(image.shape, &image.geometry)?;
            let segmenter = infer::Segmenter::new(&**network, parameters, task, options)?;
            Ok((segmenter.segment("array", image, tick)?, warning))
        })?;
        let (axes, flips) = way_back(&orientation);
        let facts = PyDict::new(py);
        facts.set_item("shape", found.labels.shape)?;
        facts.set_item("axes", axes)?;
        facts.set_item("flips", flips)?;
        facts.set_item("evaluated", found.evaluated)?;
        facts.set_item("seconds", found.seconds)?;
        facts.set_item("peak_bytes", found.peak_bytes)?;
        facts.set_item("warning", warning)?;
        let probabilities = found.probabilities.map(|volume| volume.voxels.into_pyarray(py));
        Ok((found.labels.voxels.into_pyarray(py), probabilities, facts))
    }
}
