//! Work without the interpreter's lock, Ctrl-C on the way, and errors as exceptions.

use std::io::ErrorKind;

use ossnet::{Error, Result};
use pyo3::exceptions::{
    PyArithmeticError, PyFileNotFoundError, PyKeyboardInterrupt, PyMemoryError, PyOSError, PyPermissionError,
    PyRuntimeError, PyValueError,
};
use pyo3::prelude::*;

use crate::words::in_python;

/// The exception of an error, with its line in Python's terms.
pub fn exception(error: Error) -> PyErr {
    let line = in_python(&error.to_string());
    match error {
        Error::File { source, .. } => match source.kind() {
            ErrorKind::NotFound => PyFileNotFoundError::new_err(line),
            ErrorKind::PermissionDenied => PyPermissionError::new_err(line),
            _ => PyOSError::new_err(line),
        },
        Error::OutOfMemory(_) => PyMemoryError::new_err(line),
        Error::Device(_) => PyRuntimeError::new_err(line),
        Error::NotFinite { .. } => PyArithmeticError::new_err(line),
        Error::Interrupted(_) => PyKeyboardInterrupt::new_err(line),
        _ => PyValueError::new_err(line),
    }
}

/// A usage error as an exception.
pub fn usage(line: impl Into<String>) -> PyErr {
    exception(Error::Usage(line.into()))
}

/// Refuses more threads than any machine has a use for, as the command does.
pub fn check_threads(threads: usize) -> PyResult<()> {
    let most = std::thread::available_parallelism().map_or(1, usize::from) * 64;
    match threads > most {
        true => Err(usage(format!("threads {threads} is more than this machine can use ({most})"))),
        false => Ok(()),
    }
}

/// Runs `work` while other Python threads go on. What it is given is to be called between pieces of work: it runs Python's
/// signal handlers, and fails if one raises; that exception is then the result.
pub fn run<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<T> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let result = py.detach(|| {
        work(&mut || {
            Python::attach(|py| py.check_signals()).map_err(|error| {
                raised = Some(error);
                Error::Interrupted("nothing was kept".into())
            })
        })
    });
    match raised {
        Some(error) => Err(error),
        None => result.map_err(exception),
    }
}
