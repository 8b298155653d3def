//! Cases of a batch that cannot be used: named one by one, counted at the end, and passed over in between.

use std::path::Path;

use super::output::note;
use crate::data::Case;
use crate::error::{Error, Result};
use crate::files::name::file_name;

/// Names that the last word of a batch lists.
const LISTED: usize = 10;

/// The cases of a batch that failed.
pub struct Failures {
    /// Cases that there are.
    of: usize,
    /// There is nothing but the one case that is asked for.
    alone: bool,
    names: Vec<String>,
}

impl Failures {
    /// Of a batch of `of` cases.
    pub fn new(of: usize) -> Self {
        Self { of, alone: of <= 1, names: Vec::new() }
    }

    #[cfg(feature = "infer")]
    /// Of a part of a batch, of `of` cases, whose others are elsewhere.
    pub fn of_part(of: usize) -> Self {
        Self { alone: false, ..Self::new(of) }
    }

    /// Says why a case is passed over.
    ///
    /// # Errors
    /// `error` itself if there is nothing to go on with: a single case, or a fault that is none of the case's.
    pub fn pass_over(&mut self, name: &str, error: Error, is_the_cases: bool) -> Result<()> {
        if self.alone || !is_the_cases {
            return Err(error);
        }
        self.names.push(name.to_owned());
        note(format!("warning: {error} (passed over)"));
        Ok(())
    }

    /// The same of a file that makes no case.
    ///
    /// # Errors
    /// As there.
    pub fn pass_over_file(&mut self, problem: Error) -> Result<()> {
        self.pass_over(&file_of(&problem), problem, true)
    }

    /// The last word on a batch whose results lie in `folder`, where `what` is what was done to each case.
    ///
    /// # Errors
    /// [`Error::Data`] if cases failed, naming them.
    pub fn finish(self, folder: &Path, what: &str, remedy: &str) -> Result<()> {
        let Self { of, names, .. } = self;
        if names.is_empty() {
            return Ok(());
        }
        let mut listed = names[..names.len().min(LISTED)].join(", ");
        if names.len() > LISTED {
            listed += ", …";
        }
        let problem = format!("{} of {of} cases could not be {what} ({listed})", names.len());
        Err(Error::data(folder, problem, remedy))
    }
}

/// The name of the file that makes no case.
pub fn file_of(problem: &Error) -> String {
    match problem {
        Error::Data { path, .. } => file_name(path),
        _ => String::new(),
    }
}

/// True if a fault is one of the case, not of the machine, the user's interrupt or the folder `out` for the results.
pub fn is_of_case(error: &Error, case: &Case, out: &Path) -> bool {
    match error {
        Error::Interrupted(_) | Error::Device(_) => false,
        Error::File { path, .. } => {
            case.images.iter().chain(&case.label).any(|source| source.path() == path) || !path.starts_with(out)
        }
        _ => true,
    }
}
