//! Scores of a segmentation against labels.

use numpy::PyReadonlyArrayDyn;
use ossnet::data::geometry::Orientation;
use ossnet::evaluate::metrics::ScoreRule;
use ossnet::evaluate::scores::{Measure, Scores};
use pyo3::prelude::*;
use pythonize::pythonize;

use crate::arrays::{in_memory, shape};
use crate::running::{run, usage};

/// The scores of each of `classes`, in their order.
#[pyfunction]
pub fn evaluate<'py>(
    py: Python<'py>,
    prediction: PyReadonlyArrayDyn<'py, u8>,
    label: PyReadonlyArrayDyn<'py, u8>,
    spacing: [f64; 3],
    tolerance: f64,
    classes: Vec<u8>,
) -> PyResult<Bound<'py, PyAny>> {
    let (shape, other) = (shape(&label, "label", false)?.0, shape(&prediction, "prediction", false)?.0);
    if shape != other {
        return Err(usage(format!(
            "prediction has shape {other:?} and label {shape:?}; resample one to the other's grid"
        )));
    }
    if !spacing.iter().all(|mm| mm.is_finite() && *mm > 0.0) {
        return Err(usage(format!("spacing {spacing:?} must be three numbers of mm above 0")));
    }
    if !(tolerance.is_finite() && tolerance >= 0.0) {
        return Err(usage(format!("tolerance {tolerance} must be 0 mm or more")));
    }
    let [prediction, label] = [prediction, label].map(|array| in_memory(array.as_array(), &Orientation::STORED));
    let scores = run(py, |tick| {
        let measure = Measure { shape, spacing, tolerance, rule: ScoreRule::DEFAULT };
        let mut scores: Vec<Scores> = Vec::new();
        for class in classes {
            tick()?;
            scores.push(measure.class(&class.to_string(), class, &prediction, &label));
        }
        Ok(scores)
    })?;
    Ok(pythonize(py, &scores)?)
}
