//! All folds of a cross-validation, one after the other, each in a folder of its own.

use std::path::Path;

use serde_json::{Value, json};

use super::{CONFIG, MOST_CONFIG, Place, SUMMARY, TrainArgs, train_in};
use crate::cli::fold_files;
use crate::cli::output::{plural, print};
use crate::cli::provenance::stamped_with;
use crate::cli::training::open_dataset;
use crate::data::{Dataset, Folds};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::files::{RunFolder, read_text, write_atomic};
use crate::report::CaseScore;
use crate::train::config::RunConfig;
use crate::train::ranks::Ranks;

/// Most bytes of a summary.
const MOST_SUMMARY: u64 = 1 << 28;

/// Trains every fold that is not finished, by all `ranks` together, and summarises them: the first rank does.
///
/// # Errors
/// As for a single run.
pub(super) fn run(
    args: &TrainArgs,
    config: &RunConfig,
    device: &Device,
    folder: &Path,
    again: &str,
    ranks: &Ranks,
) -> Result<()> {
    let verbosity = args.run.verbosity();
    let dataset = ranks.all(open_dataset(&config.data(), config.seed))?;
    let folds = ranks.all(Folds::of(&dataset, config.folds, config.seed))?;
    ranks.first(|| fold_files::check(folder, &folds))?;
    let begin = || {
        fold_files::write(folder, &folds, 0, &dataset)?;
        write_atomic(folder.join(CONFIG), config.to_toml()?.as_bytes())
    };
    let mut summaries = Vec::new();
    for number in 1..=config.folds {
        let own = RunConfig { fold: number, ..config.clone() };
        let path = fold_files::folder_of(folder, number);
        let mut before = None;
        let is_finished = ranks.first_finds(|| {
            before = finished(&path, &own)?;
            Ok(before.is_some())
        })?;
        if is_finished {
            verbosity.say(format!("fold {number}/{}: was finished before", config.folds));
            summaries.extend(before);
            continue;
        }
        verbosity.say(format!("fold {number}/{}", config.folds));
        // Held while it is trained, by the first rank.
        let _claimed = ranks.first(|| RunFolder::claim(&path, |_| true))?;
        let resuming = ranks.first_finds(|| Ok(path.join(CONFIG).exists()))?;
        let place = Place { folder: &path, resuming, again, begin: &begin, ranks };
        let trained = train_in(args, &own, device, &place)?;
        if !ranks.is_first() {
            continue;
        }
        summaries.push(parsed(&path, &trained.json)?);
    }
    if !ranks.is_first() {
        return Ok(());
    }
    // Where all folds came from elsewhere, nothing has begun here yet.
    begin()?;
    let (json, text) = summarised(&summaries, folder, &dataset)?;
    write_atomic(folder.join(SUMMARY), json.as_bytes())?;
    print(if args.run.json { json } else { text })
}

/// The summary of a run of just this configuration that came to its end.
pub(super) fn finished(folder: &Path, config: &RunConfig) -> Result<Option<Value>> {
    let (summary, stored) = (folder.join(SUMMARY), folder.join(CONFIG));
    if !summary.exists() || !stored.exists() || read_text(&stored, MOST_CONFIG)? != config.to_toml()? {
        return Ok(None);
    }
    parsed(&summary, &read_text(&summary, MOST_SUMMARY)?).map(Some)
}

fn parsed(path: &Path, text: &str) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|error| Error::data(path, format!("is no summary ({error})"), "remove it, and run the command again"))
}

/// The cases of all folds together, as JSON and for people.
fn summarised(summaries: &[Value], folder: &Path, dataset: &Dataset) -> Result<(String, String)> {
    let (mut cases, mut text): (Vec<CaseScore>, _) = (Vec::new(), String::from("fold   cases    Dice     IoU\n"));
    for (number, summary) in (1..).zip(summaries) {
        let own: Vec<CaseScore> = serde_json::from_value(summary["cases"].clone()).map_err(|error| {
            Error::data(folder, format!("fold {number} has no scores ({error})"), "remove its folder")
        })?;
        let (dice, iou) = evaluate::means(&own);
        text += &format!("{number:<5} {:>6} {dice:>7.4} {iou:>7.4}\n", own.len());
        cases.extend(own);
    }
    let (dice, iou) = evaluate::means(&cases);
    let model = summaries.first().map_or("", |summary| summary["model"].as_str().unwrap_or(""));
    text += &format!(
        "{model}: mean Dice {dice:.4}, IoU {iou:.4} on {} of {}\nsummary: {}",
        plural(cases.len(), "case"),
        plural(summaries.len(), "fold"),
        folder.join(SUMMARY).display()
    );
    let runs: Vec<Value> = summaries.iter().map(without_cases).collect();
    let json = json!({ "model": model, "dice": dice, "iou": iou, "cases": cases, "folds": runs });
    Ok((format!("{:#}\n", stamped_with(json, "runs", Some(dataset))?), text))
}

/// What a fold cost, without the scores that stand beside it.
fn without_cases(summary: &Value) -> Value {
    let keep = |key: &&String| !["cases", "schema_version", "made_by", "data", "validations"].contains(&key.as_str());
    let entries = summary.as_object().into_iter().flatten().filter(|(key, _)| keep(key));
    Value::Object(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
}
