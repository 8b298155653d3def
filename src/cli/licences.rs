//! `ossnet licences`: the notices of the embedded data.

use std::io::Write;

use crate::error::{Error, Result};

/// Prints them.
pub fn run() -> Result<()> {
    let text = crate::data::sample::licences();
    match std::io::stdout().write_all(text.as_bytes()) {
        // A pager that was closed early has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Error::file("standard output", error)),
    }
}
