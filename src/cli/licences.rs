//! `ossnet licences`: the notices of the embedded data.

use clap::Args;

use super::output::print;
use super::provenance::print_json;
use crate::data::embedded::licences;
use crate::error::Result;

/// Flags of `ossnet licences`.
#[derive(Args, Clone, Debug)]
pub struct LicencesArgs {
    /// Print the result as JSON on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

/// Prints them.
///
/// # Errors
/// Standard output refuses.
pub fn run(args: &LicencesArgs) -> Result<()> {
    match args.json {
        true => print_json(serde_json::json!({ "text": licences() }), "licences"),
        false => print(licences()),
    }
}
