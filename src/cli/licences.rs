//! `ossnet licences`: the notices of the embedded data.

use super::output::print;
use crate::error::Result;

/// Prints them.
///
/// # Errors
/// Standard output refuses.
pub fn run() -> Result<()> {
    print(crate::data::embedded::licences())
}
