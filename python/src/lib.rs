//! `ossnet._ossnet`: the engine for Python. The package around it (`python/ossnet`) has the names, defaults and docstrings;
//! here are conversions, and errors as exceptions. No arithmetic is done here.

mod arrays;
mod meshes;
mod plans;
mod running;
mod scores;
mod segmenter;

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command line with these arguments, the program's name first; its exit status.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| ossnet::cli::main(arguments))
}

#[pymodule]
fn _ossnet(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", ossnet::cli::VERSION)?;
    module.add_function(wrap_pyfunction!(command, module)?)?;
    module.add_function(wrap_pyfunction!(plans::plan, module)?)?;
    module.add_function(wrap_pyfunction!(plans::sweep, module)?)?;
    module.add_function(wrap_pyfunction!(plans::fit, module)?)?;
    module.add_function(wrap_pyfunction!(plans::roofline, module)?)?;
    module.add_function(wrap_pyfunction!(scores::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(meshes::marching_cubes, module)?)?;
    module.add_class::<segmenter::Segmenter>()
}
