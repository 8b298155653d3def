//! One case: read, answered, written.

use std::time::Instant;

use serde_json::Value;

use super::outputs::{Outputs, write_occupancy};
use super::summary::entry;
use super::{Batch, InferArgs, segmenter};
use crate::data::{Case, Labels, Scan, Volume, Warning, nifti, validate};
use crate::error::Result;
use crate::infer::{Refinement, SegmenterOptions};
use crate::label_table;
use crate::task::Task;

/// A case in memory, and the seconds that it took to get there.
pub(super) struct Read {
    scan: Scan,
    seconds: f64,
}

/// What is to be written of a case.
pub(super) struct Answer {
    labels: Labels,
    probabilities: Option<Volume>,
    /// Its line in the summary, with the seconds so far.
    entry: Value,
}

/// Reads a case as the network's task wants it.
///
/// # Errors
/// Those of [`Case::read`], and another number of channels than the network's.
pub(super) fn read(task: &Task, case: &Case) -> Result<Read> {
    let started = Instant::now();
    let scan = case.read(&[], task.preprocessing.axes)?;
    task.check(&case.name, &scan.image)?;
    Ok(Read { scan, seconds: started.elapsed().as_secs_f64() })
}

impl Batch {
    /// Segments one case and writes its meshes. `warn` hears what is odd about the scan.
    ///
    /// # Errors
    /// Those of [`crate::infer::Ensemble::segment`] and of files.
    pub(super) fn answer(
        &self,
        case: &Case,
        outputs: &Outputs,
        read: Read,
        tick: &mut dyn FnMut() -> Result<()>,
        warn: &mut dyn FnMut(Warning),
    ) -> Result<Answer> {
        let Self { args, networks, .. } = self;
        let (model, several) = (networks.model(), !networks.others.is_empty());
        let started = Instant::now();
        let Read { scan, seconds } = read;
        validate::grouped(scan.warnings).into_iter().for_each(&mut *warn);
        if let Some(problem) = model.task.preprocessing.unusual_spacing(scan.image.shape, &scan.image.geometry)? {
            warn(Warning::new(case.images[0].path(), problem));
        }
        let shape = args.shape(&scan.image.geometry)?;
        let found = networks.ensemble(shape)?.segment(&case.name, scan.image, tick)?;
        model.parameters.device().read_profile()?;
        let InferArgs { seen, asked, .. } = args;
        let field = found.probabilities.as_ref().map(|volume| (volume, asked.threshold()));
        let refined = |mesh, refinement: &Refinement| {
            // Read again: the image is not held while the network runs.
            let image = case.read(&[], model.task.preprocessing.axes)?.image;
            let refinement = Refinement { threshold: f64::from(asked.threshold()), ..*refinement };
            let options = SegmenterOptions { shape, ..networks.first.1.clone() };
            segmenter(model, options)?.refine(&case.name, image, mesh, &refinement, tick)
        };
        let place = (model.parameters.device(), outputs.folder(), outputs.name.as_str());
        let meshes = seen.write(place, &model.task, &found.labels, field, refined)?;
        let mut entry = entry(model, case, outputs, &found, seconds + started.elapsed().as_secs_f64())?;
        entry["weights"] = self.weights.clone().into();
        if several {
            entry["checkpoints"] = (networks.others.len() + 1).into();
        }
        if !meshes.is_empty() {
            entry["meshes"] = meshes.into();
        }
        Ok(Answer { labels: found.labels, probabilities: found.probabilities, entry })
    }
}

/// Writes an answer; the segmentation comes last, so that it tells that all is done. Returns the case's line in the summary.
///
/// # Errors
/// A full disk, a folder that refuses.
pub(super) fn write(task: &Task, outputs: &Outputs, answer: Answer) -> Result<Value> {
    let started = Instant::now();
    let Answer { labels, probabilities, mut entry } = answer;
    if let (Some(path), Some(probabilities)) = (&outputs.probabilities, probabilities) {
        nifti::write_volume(path, &probabilities)?;
    }
    if let Some(path) = &outputs.occupancy {
        write_occupancy(path, task, &labels)?;
    }
    label_table::write(outputs.folder(), &outputs.table, &label_table::labels(task))?;
    labels.write(&outputs.labels)?;
    entry["seconds"] = (entry["seconds"].as_f64().unwrap_or(0.0) + started.elapsed().as_secs_f64()).into();
    Ok(entry)
}
