//! What is written to the terminal. A reader that goes away (`ossnet … | head`) is no error, and never a panic, as it
//! would be with `println!`. Control characters, as a file's name may hold them, are shown escaped.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};
#[cfg(feature = "train")]
use crate::files::RunFolder;
pub use crate::text::plural;
use crate::text::{visible, visible_line};

/// Writes a result to standard output, with a final newline.
///
/// # Errors
/// [`Error::File`] if it refuses, a full disk behind a redirection included.
pub fn print(text: impl AsRef<str>) -> Result<()> {
    let text = &*visible(text.as_ref());
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = io::stdout().lock();
    let written =
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Error::file("standard output", error)),
    }
}

/// Files of an earlier command stay unless `overwrite` says otherwise.
///
/// # Errors
/// [`Error::Data`] for the first that exists.
pub fn refuse_existing<P: AsRef<Path>>(files: impl IntoIterator<Item = P>, overwrite: bool) -> Result<()> {
    match files.into_iter().find(|path| !overwrite && path.as_ref().exists()) {
        Some(path) => {
            Err(Error::data(path.as_ref(), "exists already", "choose another name, or replace it with --overwrite"))
        }
        None => Ok(()),
    }
}

#[cfg(feature = "train")]
/// A new or empty folder for results, `out` or a numbered one of `command`; with `overwrite` also one that holds `file`, as an
/// earlier run of the command leaves it.
///
/// # Errors
/// [`Error::Data`] if it holds that without `overwrite`, or anything else; [`Error::File`] if it cannot be made.
pub fn result_folder(out: Option<&Path>, command: &str, file: &str, overwrite: bool) -> Result<RunFolder> {
    refuse_existing(out.map(|out| out.join(file)), overwrite)?;
    match out {
        Some(folder) => RunFolder::claim(folder, |folder| folder.join(file).exists()),
        None => RunFolder::numbered("runs", command),
    }
}

/// Writes a line to standard error, which has nowhere to report its own failure to.
pub fn note(line: impl AsRef<str>) {
    note_after("", line);
}

/// The same behind `head`, which is printed as it is.
pub fn note_after(head: impl AsRef<str>, line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}{}", head.as_ref(), visible_line(line.as_ref()));
}
