//! Scores of a segmentation against labels.

use numpy::PyReadonlyArrayDyn;
use ossnet::data::geometry::Orientation;
use ossnet::evaluate::metrics::ScoreRule;
use ossnet::evaluate::scores::Measure;
use pyo3::prelude::*;
use pythonize::pythonize;

use crate::arrays::{in_memory, shape};
use crate::running::{run, usage};

/// The scores of one class: `prediction` and `label` are 1 inside it and 0 outside, whatever its value.
#[pyfunction]
pub fn evaluate<'py>(
    py: Python<'py>,
    prediction: PyReadonlyArrayDyn<'py, u8>,
    label: PyReadonlyArrayDyn<'py, u8>,
    spacing: [f64; 3],
    tolerance: f64,
) -> PyResult<Bound<'py, PyAny>> {
    let (shape, other) = (shape(&label, "label", false)?.0, shape(&prediction, "prediction", false)?.0);
    if shape != other {
        return Err(usage(format!(
            "prediction has shape {other:?} and label {shape:?}; resample one to the other's grid"
        )));
    }
    let [prediction, label] = [prediction, label].map(|array| in_memory(array.as_array(), &Orientation::STORED));
    let scores = run(py, |_| {
        let measure = Measure { shape, spacing, tolerance, rule: ScoreRule::DEFAULT };
        Ok(measure.class("inside", 1, &prediction, &label))
    })?;
    Ok(pythonize(py, &scores)?)
}
