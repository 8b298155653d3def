//! `ossnet._ossnet`: the engine for Python. The package around it (`python/ossnet`) has the names, defaults and docstrings;
//! here are conversions, and errors as exceptions. No arithmetic is done here.

mod arrays;
mod meshes;
mod plans;
mod running;
mod scores;
mod segmenter;
mod words;

use std::ffi::OsString;

use ossnet::planner::curves;
use ossnet::quantities;
use pyo3::prelude::*;

use running::usage;

/// Runs the command line with these arguments, the program's name first; its exit status.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| ossnet::cli::main(arguments))
}

/// A shape as the command line takes it: `256x256x160`.
#[pyfunction]
fn read_shape(text: &str) -> PyResult<[usize; 3]> {
    quantities::parse_shape(text).map_err(usage)
}

/// A spacing in mm as the command line takes it: `0.5`, `1x1x3`.
#[pyfunction]
fn read_spacing(text: &str) -> PyResult<[f64; 3]> {
    quantities::parse_spacing(text).map_err(usage)
}

/// Bytes as the command line takes them: `8GiB`.
#[pyfunction]
fn read_bytes(text: &str) -> PyResult<u64> {
    quantities::parse_bytes(text).map_err(usage)
}

/// The sides of a sweep as the command line takes them: `32..1024`, `64,96,224`.
#[pyfunction]
fn read_sides(text: &str) -> PyResult<Vec<usize>> {
    curves::parse_sides(text).map_err(usage)
}

/// A message of the engine in Python's terms, as exceptions have it.
#[pyfunction]
fn in_python(message: &str) -> String {
    words::in_python(message)
}

#[pymodule]
fn _ossnet(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", ossnet::cli::VERSION)?;
    module.add_function(wrap_pyfunction!(command, module)?)?;
    module.add_function(wrap_pyfunction!(read_shape, module)?)?;
    module.add_function(wrap_pyfunction!(read_spacing, module)?)?;
    module.add_function(wrap_pyfunction!(read_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(read_sides, module)?)?;
    module.add_function(wrap_pyfunction!(in_python, module)?)?;
    module.add_function(wrap_pyfunction!(plans::plan, module)?)?;
    module.add_function(wrap_pyfunction!(plans::sweep, module)?)?;
    module.add_function(wrap_pyfunction!(plans::sweep_shapes, module)?)?;
    module.add_function(wrap_pyfunction!(plans::fit, module)?)?;
    module.add_function(wrap_pyfunction!(plans::roofline, module)?)?;
    module.add_function(wrap_pyfunction!(scores::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(meshes::marching_cubes, module)?)?;
    module.add_class::<segmenter::Segmenter>()
}
