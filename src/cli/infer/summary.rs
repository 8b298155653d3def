//! What is said of each case: a line, and its entry of `inference.json`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Outputs;
use crate::checkpoint::model::Model;
use crate::cli::provenance::stamped;
use crate::data::{Case, Labels};
use crate::error::{Error, Result};
use crate::files::{read_text, write_atomic};
use crate::infer::Segmentation;
use crate::task::Task;
use crate::text::visible_line;

/// A case's line in the summary.
pub(super) fn entry(
    model: &Model,
    case: &Case,
    outputs: &Outputs,
    found: &Segmentation,
    seconds: f64,
) -> serde_json::Value {
    let points: u64 = found.evaluated.iter().sum();
    let (evaluated, what) = match model.network.occupancy() {
        Some(_) => (&found.evaluated[..], "points"),
        None => (&[][..], "passes"),
    };
    let mut entry = of_labels(&model.task, case, outputs, &found.labels);
    entry["seconds"] = seconds.into();
    entry["inference_seconds"] = found.seconds.into();
    entry["peak_bytes"] = found.peak_bytes.into();
    entry[what] = points.into();
    if !evaluated.is_empty() {
        entry["points_by_stage"] = evaluated.into();
    }
    if let Some(verification) = found.verification {
        entry["verification"] = serde_json::json!(verification);
    }
    entry
}

/// The part of a case's line that its segmentation tells: all that is known of one whose process was killed before it wrote
/// the line.
pub(super) fn of_labels(task: &Task, case: &Case, outputs: &Outputs, labels: &Labels) -> serde_json::Value {
    let values = &task.preprocessing.classes;
    let millilitres = labels.geometry.affine.determinant().abs() / 1000.0;
    let counts = labels.histogram();
    let background = values.first().copied().unwrap_or(0);
    let by_class: serde_json::Map<String, serde_json::Value> = values
        .iter()
        .enumerate()
        .skip(1)
        .map(|(class, &value)| {
            let name = task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"));
            (name, (counts[usize::from(value)] as f64 * millilitres).into())
        })
        .collect();
    let foreground = labels.len() as u64 - counts[usize::from(background)];
    let inputs: Vec<String> = case.images.iter().map(|source| source.path().display().to_string()).collect();
    serde_json::json!({
        "case": case.name,
        "input": inputs.join(","),
        "output": outputs.labels.display().to_string(),
        "shape": labels.geometry.stored.shape,
        "foreground_ml": foreground as f64 * millilitres,
        "ml_by_class": by_class,
    })
}

/// The same for a reader.
pub(super) fn line(entry: &serde_json::Value, outputs: &Outputs) -> String {
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(0.0);
    let mut line = format!(
        "{}: {:.1} ml of foreground, {:.1} s",
        outputs.labels.display(),
        number(&entry["foreground_ml"]),
        number(&entry["seconds"])
    );
    if let Some(points) = entry["points"].as_u64() {
        line += &format!(", {points} points");
    }
    if let Some(dense) = entry.get("verification") {
        line += &format!(
            "; {} voxels differ from all {} points evaluated, in {:.1} s",
            dense["different_voxels"],
            dense["points"],
            number(&dense["seconds"])
        );
    }
    visible_line(&line).into_owned()
}

/// Most bytes of a summary: a million scans.
const MOST: u64 = 1 << 30;

/// The file's layouts: today's, and the bare list of version 0.1.
#[derive(Deserialize)]
#[serde(untagged)]
enum Known {
    Stamped { cases: Vec<serde_json::Value> },
    Bare(Vec<serde_json::Value>),
}

/// `inference.json`: what was found of each case in a folder, and what it cost.
pub(super) struct Summary {
    /// None is written beside a single file.
    path: Option<PathBuf>,
    pub(super) entries: Vec<serde_json::Value>,
}

impl Summary {
    /// One that is only printed.
    pub(super) fn unwritten() -> Self {
        Self { path: None, entries: Vec::new() }
    }

    /// That of earlier runs into the folder, if there is one.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("inference.json");
        let entries = match path.exists() {
            false => Vec::new(),
            true => {
                let text = read_text(&path, MOST)?;
                let remedy = "choose another --out, or remove it";
                let known: Known = serde_json::from_str(&text)
                    .map_err(|error| Error::data(&path, format!("is no list of segmentations ({error})"), remedy))?;
                match known {
                    Known::Stamped { cases } | Known::Bare(cases) => cases,
                }
            }
        };
        Ok(Self { path: Some(path), entries })
    }

    /// Whether a case is in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry["case"] == name)
    }

    /// One more case, or a case again.
    pub(super) fn add(&mut self, name: &str, entry: serde_json::Value) -> Result<()> {
        self.entries.retain(|other| other["case"] != name);
        self.entries.push(entry);
        let Some(path) = &self.path else { return Ok(()) };
        write_atomic(path, format!("{:#}\n", stamped(self.entries.clone().into(), "cases")).as_bytes())
    }
}
