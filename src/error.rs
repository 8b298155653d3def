//! The one error type of the crate.
//!
//! Every message is a single line that names the file, flag, op or shape at fault and what to do about it. Variants are
//! grouped by who can mend the cause: the user's files ([`Error::File`], [`Error::Data`]), the command line
//! ([`Error::Usage`]), the budget ([`Error::OutOfMemory`]), the model's configuration ([`Error::Model`]), the op's
//! caller ([`Error::Shape`]), the numbers themselves ([`Error::NotFinite`], [`Error::NoAnswer`]).

use std::path::{Path, PathBuf};

use crate::memory::OutOfMemory;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in one line, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{}: {}{}", path.display(), told(source), hint(source))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file was read but its content is not usable.
    #[error("{}: {problem}; {remedy}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What the user can do.
        remedy: String,
    },
    /// The command line or a configuration value is wrong.
    #[error("{0}")]
    Usage(String),
    /// Shapes do not fit together in an op.
    #[error("{op}: {problem}")]
    Shape {
        /// Name of the op.
        op: &'static str,
        /// The shapes and what was expected.
        problem: String,
    },
    /// A model cannot be built or applied as configured.
    #[error("{0}")]
    Model(String),
    /// An allocation would exceed the device's budget.
    #[error(transparent)]
    OutOfMemory(Box<OutOfMemory>),
    /// A device is missing or its driver refused something.
    #[error("{0}")]
    Device(String),
    /// A value that must be finite is not.
    #[error(
        "{what} is not finite at step {step} (first seen in {op}); lower the learning rate or look at the input; checkpoints saved earlier are kept"
    )]
    NotFinite {
        /// What was not finite (loss, gradient).
        what: String,
        /// Optimiser step, from 1.
        step: u64,
        /// The first op whose output was not finite.
        op: String,
    },
    /// A network's answer is NaN or infinite: it names no class.
    #[error(
        "{}: the network answers with NaN or infinity; its weights are damaged or out of range: use another checkpoint, or look at the scan's values", case.as_deref().unwrap_or("a scan")
    )]
    NoAnswer {
        /// The scan, once it is known.
        case: Option<String>,
    },
    /// Another process of the run cannot go on.
    #[error("rank {rank}: {told}")]
    Rank {
        /// Which.
        rank: usize,
        /// Its error.
        told: String,
        /// Its exit status.
        code: u8,
        /// Memory was refused to it: with other settings the run may go on.
        out_of_memory: bool,
    },
    /// The user interrupted the work (Ctrl-C); what was done is saved.
    #[error("interrupted; {0}")]
    Interrupted(String),
}

impl Error {
    /// The operating system refused `path`.
    pub fn file(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::File { path: path.as_ref().into(), source }
    }

    /// The content of `path` is not usable.
    pub fn data(path: impl AsRef<Path>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Data { path: path.as_ref().into(), problem: problem.into(), remedy: remedy.into() }
    }

    /// Shapes do not fit in `op`.
    pub fn shape(op: &'static str, problem: impl Into<String>) -> Self {
        Error::Shape { op, problem: problem.into() }
    }

    /// The same error; where it is of a network's answer, of that for the scan `case`.
    #[must_use]
    pub fn of_case(self, case: &str) -> Self {
        match self {
            Error::NoAnswer { case: None } => Error::NoAnswer { case: Some(case.into()) },
            other => other,
        }
    }

    /// Exit status of the process: 2 for usage, 130 after an interrupt, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Interrupted(_) => 130,
            Error::Rank { code, .. } => *code,
            _ => 1,
        }
    }
}

impl From<OutOfMemory> for Error {
    fn from(error: OutOfMemory) -> Self {
        Error::OutOfMemory(Box::new(error))
    }
}

/// What the system says, without the number that it has for it.
fn told(error: &std::io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => text.trim_end_matches(&format!(" (os error {code})")).into(),
        None => text,
    }
}

/// The remedy for the operating system's commonest refusals.
fn hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match error.kind() {
        NotFound | NotADirectory => "; check the path",
        IsADirectory => "; name a file",
        PermissionDenied => "; check the permissions, or choose another folder",
        FileTooLarge => "; choose another folder, or raise the limit on the size of files",
        ReadOnlyFilesystem => "; choose another folder",
        StorageFull | QuotaExceeded => "; free some space, or choose another folder",
        AlreadyExists => "; choose another name",
        _ => "; check the path and the disk",
    }
}
