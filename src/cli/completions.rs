//! `ossnet completions` and `ossnet man`: what shells and readers of manuals want to know of the command line.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::print;
use crate::error::{Error, Result};
use crate::files::write_atomic;

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
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ossnet", &mut script);
    print(String::from_utf8_lossy(&script))
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
        let mut text = Vec::new();
        let rendered = clap_mangen::Man::new(page.clone()).title(name).render(&mut text);
        rendered.map_err(|error| Error::file(&path, error))?;
        write_atomic(&path, &text)?;
        written += 1;
    }
    print(format!("{written} pages in {}", args.folder.display()))
}
