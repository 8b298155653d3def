//! The command-line program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A release does not unwind: what a panic has printed is the end, with the exit code that it has elsewhere.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::exit(101);
    }));
    ExitCode::from(ossnet::cli::main(std::env::args_os()))
}
