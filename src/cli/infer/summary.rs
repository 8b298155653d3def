//! What is said of each case: a line, and its entry of `inference.json`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::outputs::Outputs;
use super::shard::Shard;
use crate::checkpoint::model::Model;
use crate::cli::provenance::{data_hash, stamped};
use crate::data::{Case, Labels};
use crate::error::{Error, Result};
use crate::files::{self, read_text, write_atomic};
use crate::infer::Segmentation;
use crate::task::Task;
use crate::text::visible_line;

/// A case's line in the summary.
///
/// # Errors
/// A scan that cannot be read any more.
pub(super) fn entry(
    model: &Model,
    case: &Case,
    outputs: &Outputs,
    found: &Segmentation,
    seconds: f64,
) -> Result<Value> {
    let points: u64 = found.evaluated.iter().sum();
    let (evaluated, what) = match model.network.occupancy() {
        Some(_) => (&found.evaluated[..], "points"),
        None => (&[][..], "passes"),
    };
    let mut entry = of_labels(&model.task, case, outputs, &found.labels)?;
    entry["seconds"] = seconds.into();
    entry["inference_seconds"] = found.seconds.into();
    if let Some(seconds) = found.after_network_seconds {
        entry["after_network_seconds"] = seconds.into();
    }
    entry["peak_bytes"] = found.peak_bytes.into();
    entry[what] = points.into();
    if !evaluated.is_empty() {
        entry["points_by_stage"] = evaluated.into();
    }
    if let Some(verification) = found.verification {
        entry["verification"] = json!(verification);
    }
    Ok(entry)
}

/// The part of a case's line that its segmentation tells: all that is known of one whose process was killed before it wrote
/// the line.
///
/// # Errors
/// A scan that cannot be read any more.
pub(super) fn of_labels(task: &Task, case: &Case, outputs: &Outputs, labels: &Labels) -> Result<Value> {
    let values = &task.preprocessing.classes;
    let affine = &labels.geometry.affine;
    let counts = labels.histogram();
    let background = values.first().copied().unwrap_or(0);
    let by_class: serde_json::Map<String, Value> = values
        .iter()
        .enumerate()
        .skip(1)
        .map(|(class, &value)| {
            let name = task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"));
            (name, affine.millilitres(counts[usize::from(value)]).into())
        })
        .collect();
    let foreground = labels.len() as u64 - counts[usize::from(background)];
    let inputs: Vec<String> = case.images.iter().map(|source| source.path().display().to_string()).collect();
    Ok(json!({
        "case": case.name,
        "input": inputs.join(","),
        "input_hash": data_hash(std::iter::once(case))?,
        "output": outputs.labels.display().to_string(),
        "shape": labels.geometry.stored.shape,
        "foreground_ml": affine.millilitres(foreground),
        "ml_by_class": by_class,
    }))
}

/// The same for a reader.
pub(super) fn line(entry: &Value, outputs: &Outputs) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
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

/// Least time between two writings of a summary. What a killed process did not write is read again from the segmentations.
const PAUSE: Duration = Duration::from_secs(1);

/// The file's layouts: today's, and the bare list of version 0.1.
#[derive(Deserialize)]
#[serde(untagged)]
enum Known {
    Stamped(Told),
    Bare(Vec<Value>),
}

/// What a summary says.
#[derive(Default, Deserialize)]
pub(super) struct Told {
    /// What was found of each case.
    pub(super) cases: Vec<Value>,
    /// The cases that could not be segmented, and why.
    #[serde(default)]
    pub(super) failed: Vec<Failed>,
    /// Of a shard, the names of all its cases.
    #[serde(default)]
    pub(super) planned: Vec<String>,
}

/// A case that could not be segmented.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Failed {
    pub(super) case: String,
    pub(super) problem: String,
}

impl Told {
    /// Reads a summary.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] that name it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = read_text(path, MOST)?;
        let remedy = "choose another --out, or remove it";
        let known: Known = serde_json::from_str(&text)
            .map_err(|error| Error::data(path, format!("is no list of segmentations ({error})"), remedy))?;
        Ok(match known {
            Known::Stamped(told) => told,
            Known::Bare(cases) => Self { cases, ..Self::default() },
        })
    }
}

/// What the summary of a whole folder is called.
pub(super) const WHOLE: &str = "inference.json";

/// What the summary of a shard is called.
pub(super) fn name_of(shard: Shard) -> String {
    format!("inference-{}.json", shard.tag())
}

/// The shard whose summary is called so.
pub(super) fn shard_of(name: &str) -> Option<Shard> {
    Shard::from_tag(name.strip_prefix("inference-")?.strip_suffix(".json")?)
}

/// `inference.json`, or that of a shard: what was found of each case in a folder, and what it cost.
pub(super) struct Summary {
    path: PathBuf,
    /// The name of the only scan, if its segmentation is one file.
    only: Option<String>,
    pub(super) entries: Vec<Value>,
    failed: Vec<Failed>,
    shard: Option<(Shard, Vec<String>)>,
    written: Option<Instant>,
    changed: bool,
}

impl Summary {
    /// That of earlier runs into the folder, if there is one. Of a shard with the names of its cases.
    pub(super) fn open(folder: &Path, shard: Option<(Shard, Vec<String>)>) -> Result<Self> {
        let path = folder.join(shard.as_ref().map_or(WHOLE.into(), |(shard, _)| name_of(*shard)));
        Self::read(path, None, shard)
    }

    /// That of a single segmentation, of the scan `name`, in the file `path` beside it.
    pub(super) fn beside(path: PathBuf, name: &str) -> Result<Self> {
        Self::read(path, Some(name.into()), None)
    }

    fn read(path: PathBuf, only: Option<String>, shard: Option<(Shard, Vec<String>)>) -> Result<Self> {
        let mut told = if path.exists() { Told::read(&path)? } else { Told::default() };
        told.cases.retain(|entry| only.as_ref().is_none_or(|only| entry["case"] == **only));
        let changed = shard.is_some();
        Ok(Self { path, only, entries: told.cases, failed: Vec::new(), shard, written: None, changed })
    }

    /// What it says of a case.
    pub(super) fn of(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry["case"] == name)
    }

    /// One more case, or a case again.
    pub(super) fn add(&mut self, name: &str, entry: Value) -> Result<()> {
        self.entries.retain(|other| other["case"] != name);
        self.entries.push(entry);
        self.changed = true;
        match self.written {
            Some(written) if written.elapsed() < PAUSE => Ok(()),
            _ => self.flush(),
        }
    }

    /// A case that could not be segmented.
    pub(super) fn fail(&mut self, name: &str, problem: String) {
        self.failed.push(Failed { case: name.into(), problem });
        self.changed = true;
    }

    /// Brings the file up to date.
    pub(super) fn flush(&mut self) -> Result<()> {
        // A single segmentation that was not made is told by the exit status.
        if !self.changed || self.only.is_some() && self.entries.is_empty() {
            return Ok(());
        }
        let mut all = json!({ "cases": self.entries, "failed": self.failed });
        if let Some((shard, planned)) = &self.shard {
            all["shard"] = shard.to_string().into();
            all["planned"] = planned.clone().into();
        }
        write(&self.path, all)?;
        (self.written, self.changed) = (Some(Instant::now()), false);
        Ok(())
    }
}

/// Writes a summary.
pub(super) fn write(path: &Path, summary: Value) -> Result<()> {
    write_atomic(path, format!("{:#}\n", stamped(summary, "cases")).as_bytes())
}

/// What tells a checkpoint from another: the CRC-32 of its file.
///
/// # Errors
/// [`Error::File`].
pub(super) fn fingerprint(path: &Path) -> Result<String> {
    let mut file = files::open(path)?;
    let (mut crc, mut part) = (flate2::Crc::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut part).map_err(|error| Error::file(path, error))? {
            0 => return Ok(format!("crc32:{:08x}", crc.sum())),
            count => crc.update(&part[..count]),
        }
    }
}
