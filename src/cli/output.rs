//! What is written to the terminal. A reader that goes away (`ossnet … | head`) is no error, and never a panic, as it
//! would be with `println!`. Control characters, as a file's name may hold them, are shown escaped.

use std::io::{self, ErrorKind, Write};

use crate::error::{Error, Result};
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

/// `1 case`, `2 cases`.
pub fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes a line to standard error, which has nowhere to report its own failure to.
pub fn note(line: impl AsRef<str>) {
    note_after("", line);
}

/// The same behind `head`, which is printed as it is.
pub fn note_after(head: impl AsRef<str>, line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}{}", head.as_ref(), visible_line(line.as_ref()));
}
