//! The command-line program: prints the one error there may be, and sets the exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ossnet::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ossnet::cli::note(format!("ossnet: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
