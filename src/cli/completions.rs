//! `ossnet completions` and `ossnet man`: what shells and readers of manuals want to know of the command line.

use std::io;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command, ValueHint};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};

use super::help::TOP;
use super::output::print;
use crate::error::{Error, Result};
use crate::files::write_atomic;
use crate::models::network;
#[cfg(feature = "train")]
use crate::planner::gpus::SPEEDS;

/// Flags of `ossnet completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Flags of `ossnet man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Folder for the pages, made if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints a shell's completions.
///
/// # Errors
/// Standard output that cannot be written.
pub fn completions(args: &CompletionsArgs, command: Command) -> Result<()> {
    let mut command = command.mut_subcommands(|page| {
        let name = page.get_name().to_string();
        page.mut_args(|arg| hinted(&name, arg))
    });
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ossnet", &mut script);
    print(String::from_utf8_lossy(&script))
}

/// A flag with the values that a shell can offer for it; the parser itself takes more, and tells what it knows when it refuses.
fn hinted(command: &str, arg: Arg) -> Arg {
    match (command, arg.get_id().as_str()) {
        (_, "model" | "models") => arg.value_parser(PossibleValuesParser::new(network::names())),
        #[cfg(feature = "train")]
        ("roofline", "device") => arg.value_parser(PossibleValuesParser::new(SPEEDS.map(|speed| speed.name))),
        #[cfg(feature = "train")]
        (_, "plan_for") => {
            let places = ["cpu", "cuda"].into_iter().chain(SPEEDS.map(|speed| speed.name));
            arg.value_parser(PossibleValuesParser::new(places))
        }
        (_, "mesh") => arg.value_parser(["obj", "ply", "stl", "glb", "pt"]),
        (_, "device") => arg.value_parser(["cpu", "cuda"]),
        (_, "data" | "dataset_path") => arg.value_hint(ValueHint::DirPath),
        (_, "input") => arg.value_hint(ValueHint::AnyPath),
        _ => arg,
    }
}

/// Writes a page for the program and for each command.
///
/// # Errors
/// A folder that cannot be written.
pub fn man(args: &ManArgs, command: Command) -> Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(|error| Error::file(&args.folder, error))?;
    let mut command = command.disable_help_subcommand(true);
    // Names of subcommands in full, and global flags in each.
    command.build();
    let pages = std::iter::once(&command).chain(command.get_subcommands());
    let mut written = 0;
    for page in pages.filter(|page| !page.is_hide_set()) {
        let name = page.get_display_name().unwrap_or(page.get_name()).replace(' ', "-");
        let path = args.folder.join(format!("{name}.1"));
        let text = rendered(page, name).map_err(|error| Error::file(&path, error))?;
        write_atomic(&path, &text)?;
        written += 1;
    }
    print(format!("{written} pages in {}", args.folder.display()))
}

/// A page: what the flags say, then what help says behind them, a section each, in the lines that it is written in.
fn rendered(page: &Command, name: String) -> io::Result<Vec<u8>> {
    let mut after = page.get_after_help().map(ToString::to_string).unwrap_or_default();
    // Help of a command leaves the variables to that of the program.
    let variables = TOP.split("\n\n").find(|part| part.starts_with("Variables:\n"));
    if let Some(variables) = variables.filter(|variables| !after.contains(variables)) {
        after = format!("{after}\n\n{variables}");
    }
    // A version of one line, as the section is: the features of a build are `ossnet --version`'s to tell.
    let page = page.clone().after_help(None::<&str>).after_long_help(None::<&str>).long_version(None::<&str>);
    let (has_commands, has_version) = (page.has_subcommands(), page.get_version().is_some());
    let man = clap_mangen::Man::new(page).title(name);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::default();
    for part in after.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let (title, body) = match part.split_once(":\n") {
            Some(("Examples", body)) => ("EXAMPLES", body),
            Some(("Exit status", body)) => ("EXIT STATUS", body),
            Some(("Variables", body)) => ("ENVIRONMENT", body),
            _ => ("NOTES", part),
        };
        roff.control("SH", [title]);
        roff.control("nf", []);
        roff.text([roman(body)]);
        roff.control("fi", []);
    }
    roff.to_writer(&mut text)?;
    if has_version {
        man.render_version_section(&mut text)?;
    }
    Ok(text)
}
