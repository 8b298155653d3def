//! Mutation tests from one build: `ossnet-mutants SOURCES LIST SKIPPED AREA...` rewrites the files of the areas (folders and files
//! below SOURCES) such that each mutant is a branch, taken if `crate::mutant::on(number)` says so, and lists them in LIST, a
//! JSON object a line. Numbers in the file SKIPPED are left out: those that do not compile. `scripts/mutants.py` does the rest.
//!
//! The mutants are those of cargo-mutants: bodies of functions replaced by values of their type, operators by others, arms and
//! guards of matches removed. Tests, constants, macros and `unsafe fn` are left alone.

mod rewrite;
mod values;

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rewrite::Rewriter;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sources, list, skipped, areas @ ..] = arguments.as_slice() else {
        return Err("usage: ossnet-mutants SOURCES LIST SKIPPED AREA...".into());
    };
    let skipped = fs::read_to_string(skipped).unwrap_or_default();
    let skipped = skipped.split_whitespace().map(str::parse).collect::<Result<HashSet<usize>, _>>()?;
    let mut files = Vec::new();
    for area in areas {
        let path = Path::new(sources).join(area);
        if path.is_dir() {
            find(&path, &mut files)?;
        }
        files.extend(Some(path.with_extension("rs")).filter(|path| path.is_file()));
    }
    let mut rewriter = Rewriter::new(skipped);
    for path in files {
        let mut file = syn::parse_file(&fs::read_to_string(&path)?).map_err(|error| format!("{path:?}: {error}"))?;
        rewriter.rewrite(&path.strip_prefix(sources)?.display().to_string(), &mut file);
        fs::write(&path, prettyplease::unparse(&file))?;
    }
    let mut lines = String::new();
    for mutant in &rewriter.mutants {
        writeln!(lines, "{mutant}")?;
    }
    fs::write(list, lines)?;
    println!("{} mutants", rewriter.mutants.len());
    Ok(())
}

/// All sources below a folder that are no tests, in the order of their names.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            find(&path, files)?;
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(())
}
