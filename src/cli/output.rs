//! What is written to the terminal. A reader that goes away (`ossnet … | head`) is no error, and never a panic, as it
//! would be with `println!`. Control characters, as a file's name may hold them, are shown escaped.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

use terminal_size::{Width, terminal_size};

use super::progress::above_bars;
use crate::error::{Error, Result};
use crate::files::RunFolder;
pub use crate::text::plural;
use crate::text::{visible, visible_line, wrapped};

/// Writes a result to standard output, with a final newline.
///
/// # Errors
/// [`Error::File`] if it refuses, a full disk behind a redirection included.
pub fn print(text: impl AsRef<str>) -> Result<()> {
    let text = &*visible(text.as_ref());
    // A file or another program gets the lines whole.
    let shown = io::stdout().is_terminal().then(terminal_size).flatten();
    let text = &*shown.map_or(Cow::Borrowed(text), |(Width(columns), _)| wrapped(text, usize::from(columns).max(40)));
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let write = || {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush())
    };
    match above_bars(write) {
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

/// The folders of files that a command writes when its work is done: made when missing, and tried, for a name that cannot be
/// written has to be told before the work. Those that are still empty when the result is dropped are removed again.
///
/// # Errors
/// [`Error::Data`] for the first file that exists without `overwrite`, or is a folder; [`Error::File`] for one that cannot be
/// written.
#[must_use = "the folders are removed with it"]
pub fn new_files<P: AsRef<Path>>(files: impl IntoIterator<Item = P>, overwrite: bool) -> Result<Vec<RunFolder>> {
    let files: Vec<P> = files.into_iter().collect();
    refuse_existing(&files, overwrite)?;
    files.iter().map(|file| RunFolder::of_file(file.as_ref())).collect()
}

/// Endings of files: who names a folder so means something else.
const ENDINGS: [&str; 20] = [
    "csv",
    "glb",
    "gz",
    "htm",
    "html",
    "json",
    "mha",
    "mhd",
    "nii",
    "npy",
    "npz",
    "nrrd",
    "obj",
    "ply",
    "png",
    "pt",
    "safetensors",
    "stl",
    "toml",
    "txt",
];

/// Refuses a folder's name that ends as a file's does, unless such a folder is there; `remedy` says what to do.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_folder_name(out: &Path, remedy: &str) -> Result<()> {
    let ending = out.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    match ENDINGS.contains(&&*ending) && !out.is_dir() {
        true => Err(Error::Usage(format!("--out {} would be a folder: {remedy}", out.display()))),
        false => Ok(()),
    }
}

/// What to do about such a name where nothing but a folder is meant.
pub const NAME_A_FOLDER: &str = "results are several files; name a folder";

#[cfg(feature = "train")]
/// A new or empty folder for results, `out` or a numbered one of `command`; with `overwrite` also one that holds `file`, as an
/// earlier run of the command leaves it.
///
/// # Errors
/// [`Error::Data`] if it holds that without `overwrite`, or anything else; [`Error::File`] if it cannot be made.
pub fn result_folder(out: Option<&Path>, command: &str, file: &str, overwrite: bool) -> Result<RunFolder> {
    refuse_existing(out.map(|out| out.join(file)), overwrite)?;
    out.map_or(Ok(()), |out| check_folder_name(out, NAME_A_FOLDER))?;
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
    let (head, line) = (head.as_ref(), visible_line(line.as_ref()));
    let _ = above_bars(|| writeln!(io::stderr().lock(), "{head}{line}"));
}
