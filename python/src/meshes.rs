//! Surfaces of segmentations and probability maps.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray2, PyReadonlyArrayDyn};
use ossnet::data::Labels;
use ossnet::device::Device;
use ossnet::memory::default_cpu_budget;
use ossnet::mesh::{MeshOptions, of_field, of_labels};
use pyo3::prelude::*;

use crate::arrays::{affine, geometry, in_memory, shape};
use crate::running::{check_threads, run, usage};

/// Vertices in mm and triangles, both flat.
type Flat<'py> = (Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<u32>>);

/// An array that is 1 inside a class and 0 outside, or one of values.
#[derive(FromPyObject)]
pub enum Field<'py> {
    Inside(PyReadonlyArrayDyn<'py, u8>),
    Values(PyReadonlyArrayDyn<'py, f32>),
}

/// The surface of the voxels inside, or of those whose values are above `threshold`.
#[pyfunction]
pub fn marching_cubes<'py>(
    py: Python<'py>,
    field: Field<'py>,
    matrix: PyReadonlyArray2<'py, f64>,
    shape_of: (f32, usize, usize, usize),
    threads: usize,
    budget: Option<u64>,
) -> PyResult<Flat<'py>> {
    let affine = affine(&matrix)?;
    let (threshold, smallest, smoothing, triangles) = shape_of;
    if !threshold.is_finite() {
        return Err(usage(format!("threshold {threshold} is no number; give for example 0.5")));
    }
    check_threads(threads)?;
    let options = MeshOptions { threshold, smallest, smoothing, triangles };
    let device = || Device::cpu(threads, budget.unwrap_or_else(default_cpu_budget));
    let mesh = match field {
        Field::Inside(array) => {
            let geometry = geometry(affine, shape(&array, "array", false)?.0, true);
            let voxels = in_memory(array.as_array(), &geometry.orientation);
            let labels = Labels { shape: geometry.orientation.shape(geometry.stored.shape), voxels, geometry };
            run(py, |_| Ok(of_labels(&device()?, &labels, 1, &options)?.0))?
        }
        Field::Values(array) => {
            let geometry = geometry(affine, shape(&array, "array", false)?.0, true);
            let values = in_memory(array.as_array(), &geometry.orientation);
            let shape = geometry.orientation.shape(geometry.stored.shape);
            run(py, |_| Ok(of_field(&device()?, values, shape, &geometry.affine, &options)?.0))?
        }
    };
    let (vertices, triangles) = (mesh.vertices.into_flattened(), mesh.triangles.into_flattened());
    Ok((vertices.into_pyarray(py), triangles.into_pyarray(py)))
}
