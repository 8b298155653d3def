//! `ossnet infer --merge`: one summary of a cohort out of those of its shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::AGAIN;
use super::shard::Shard;
use super::summary::{Failed, Told, WHOLE, shard_of, write};
use crate::cli::failures::Failures;
use crate::cli::output::{plural, print};
use crate::cli::provenance::print_json;
use crate::error::{Error, Result};
use crate::files::RunFolder;
use crate::order;

/// Names that a message lists.
const LISTED: usize = 10;

/// What the shards of a folder say together.
#[derive(Default)]
struct Cohort {
    /// Cases that are done, by name.
    done: BTreeMap<String, Value>,
    failed: BTreeMap<String, Failed>,
    planned: BTreeSet<String>,
    /// The shards that there are, by their number in all.
    shards: BTreeMap<usize, BTreeSet<usize>>,
}

/// Merges the summaries in `folder` into `inference.json`.
///
/// # Errors
/// [`Error::Data`] for a folder without shards, shards that are missing or have not ended, and cases that could not be segmented.
pub(super) fn run(folder: &Path, json: bool) -> Result<()> {
    let cohort = Cohort::read(folder)?;
    cohort.check(folder)?;
    let Cohort { done, failed, shards, .. } = cohort;
    let owned = RunFolder::claim(folder, |_| true)?;
    let failed: Vec<Failed> = failed.into_values().filter(|failed| !done.contains_key(&failed.case)).collect();
    let entries: Vec<Value> = done.into_values().collect();
    let path = owned.path().join(WHOLE);
    write(&path, json!({ "cases": entries, "failed": failed }))?;
    let mut failures = Failures::of_part(entries.len() + failed.len());
    for Failed { case, problem } in failed {
        failures.pass_over(&case, Error::Model(problem), true)?;
    }
    match json {
        true => print_json(entries.into(), "cases")?,
        false => {
            let seconds: f64 = entries.iter().filter_map(|entry| entry["seconds"].as_f64()).sum();
            let count: usize = shards.values().map(BTreeSet::len).sum();
            let cases = plural(entries.len(), "case");
            print(format!("{}: {cases} of {}, {seconds:.1} s", path.display(), plural(count, "shard")))?;
        }
    }
    failures.finish(folder, "segmented", AGAIN)
}

impl Cohort {
    fn read(folder: &Path) -> Result<Self> {
        let named = |source| Error::file(folder, source);
        let mut cohort = Self::default();
        for entry in folder.read_dir().map_err(named)? {
            let entry = entry.map_err(named)?;
            if let Some(shard) = entry.file_name().to_str().and_then(shard_of) {
                cohort.add(folder, shard, Told::read(&entry.path())?)?;
            }
        }
        match cohort.shards.is_empty() {
            true => {
                let problem = "holds no summary of a shard (inference-1-of-2.json, say)";
                Err(Error::data(folder, problem, "name the --out folder of ossnet infer --shard"))
            }
            false => Ok(cohort),
        }
    }

    fn add(&mut self, folder: &Path, shard: Shard, told: Told) -> Result<()> {
        self.shards.entry(shard.count).or_default().insert(shard.number);
        self.planned.extend(told.planned);
        self.failed.extend(told.failed.into_iter().map(|failed| (failed.case.clone(), failed)));
        for entry in told.cases {
            let Some(name) = entry["case"].as_str().map(str::to_owned) else { continue };
            // A folder that has been moved holds them all the same; one that was removed by hand is not done.
            let output = Path::new(entry["output"].as_str().unwrap_or_default()).file_name().unwrap_or_default();
            if !folder.join(output).is_file() {
                continue;
            }
            match self.done.get(&name) {
                // Of two that tell of a case, the one that segmented it knows more than the one that found it done.
                Some(other) if other["seconds"].is_number() || !entry["seconds"].is_number() => {}
                _ => drop(self.done.insert(name, entry)),
            }
        }
        Ok(())
    }

    /// Checks that the shards are a cohort, and that each has ended.
    fn check(&self, folder: &Path) -> Result<()> {
        let again = "run them again with --resume";
        let whole = |(count, numbers): (&usize, &BTreeSet<usize>)| numbers.len() == *count;
        if !self.shards.iter().any(whole)
            && let Some((count, numbers)) = self.shards.iter().max_by_key(|(_, numbers)| numbers.len())
        {
            let missing: Vec<String> =
                (1..=*count).filter(|number| !numbers.contains(number)).map(|number| number.to_string()).collect();
            let problem = format!("lacks {} of {count} shards ({})", missing.len(), listed(&missing));
            return Err(Error::data(folder, problem, again));
        }
        let open = |name: &&String| !self.done.contains_key(*name) && !self.failed.contains_key(*name);
        let open: Vec<String> = self.planned.iter().filter(open).cloned().collect();
        if !open.is_empty() {
            let problem = format!("{} not segmented yet ({})", plural(open.len(), "case"), listed(&open));
            return Err(Error::data(folder, problem, "run the shards again with --resume"));
        }
        let weights: BTreeSet<&str> = order::set(self.done.values().filter_map(|entry| entry["weights"].as_str()));
        if weights.len() > 1 {
            let all: Vec<String> = weights.into_iter().map(str::to_owned).collect();
            let problem = format!("holds segmentations of different weights ({})", listed(&all));
            return Err(Error::data(folder, problem, "segment all with one checkpoint (--overwrite)"));
        }
        Ok(())
    }
}

/// The first of some names.
fn listed(names: &[String]) -> String {
    let dots = if names.len() > LISTED { ", …" } else { "" };
    names[..names.len().min(LISTED)].join(", ") + dots
}
