//! What a training run costs in time and memory.
//!
//! Kept out of the checkpoint, in a file beside it: a checkpoint's bytes depend on seed, data and settings alone, while
//! seconds differ from run to run and workspaces with the number of threads.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::write_atomic;
use crate::memory::{Peak, Role, RoleBytes};
use crate::models::Recompute;

/// Seconds and bytes of a run so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Seconds of each step, data included.
    pub step_seconds: Vec<f32>,
    /// Most bytes held at once, without batches drawn ahead.
    pub peak_bytes: u64,
    /// Bytes of batches drawn ahead of their use.
    #[serde(default)]
    pub ahead_bytes: u64,
    /// Most bytes of saved and transient activations and workspace.
    pub peak_activations: u64,
    /// Who held the peak's bytes.
    pub peak_by_role: Vec<(String, u64)>,
    /// The op that made the peak.
    pub peak_op: String,
    /// What the steps recompute: what `auto` has become.
    #[serde(default)]
    pub recompute: Option<Recompute>,
}

impl Costs {
    /// Takes note of the ledger's peak. Batches that are drawn ahead are not part of what a step costs: they are as many as
    /// there is room for.
    pub fn note_peak(&mut self, peak: &Peak, activations: u64) {
        self.ahead_bytes = self.ahead_bytes.max(peak.by_role.get(Role::Staging));
        let roles = peak.by_role.without(Role::Staging);
        if roles.total() > self.peak_bytes {
            self.peak_bytes = roles.total();
            self.peak_by_role = by_role(&roles);
            self.peak_op = match peak.layer.is_empty() {
                true => peak.op.to_string(),
                false => format!("{} of {}", peak.op, peak.layer),
            };
        }
        self.peak_activations = self.peak_activations.max(activations);
    }

    /// Median seconds of a step; NaN before the first.
    pub fn median_step_seconds(&self) -> f64 {
        let mut seconds = self.step_seconds.clone();
        seconds.sort_unstable_by(f32::total_cmp);
        seconds.get(seconds.len() / 2).map_or(f64::NAN, |&s| f64::from(s))
    }

    /// Seconds of all steps together.
    pub fn training_seconds(&self) -> f64 {
        self.step_seconds.iter().map(|&seconds| f64::from(seconds)).sum()
    }

    /// Writes them beside `checkpoint`.
    ///
    /// # Errors
    /// A full disk or a folder that refuses.
    pub fn save(&self, checkpoint: &Path) -> Result<()> {
        let path = path_beside(checkpoint);
        let text = serde_json::to_string(self)
            .map_err(|error| Error::data(&path, format!("cannot be stored ({error})"), "report this"))?;
        write_atomic(path, text.as_bytes())
    }

    /// Those beside `checkpoint`; none if they are missing or unusable, as nothing but the figures of a report hangs on
    /// them.
    pub fn load(checkpoint: &Path) -> Self {
        let text = crate::files::read_text(path_beside(checkpoint), 1 << 30);
        text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

/// `o-net.costs.json` for `o-net.safetensors`.
fn path_beside(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("costs.json")
}

/// Names and bytes of the roles that hold any.
fn by_role(bytes: &RoleBytes) -> Vec<(String, u64)> {
    bytes.iter().filter(|(_, bytes)| *bytes > 0).map(|(role, bytes)| (role.name().to_string(), bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_lie_beside_the_checkpoint_and_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("o-net.safetensors");
        let costs = Costs { step_seconds: vec![3.0, 1.0, 2.0], peak_bytes: 7, ..Costs::default() };
        costs.save(&checkpoint).unwrap();
        assert!(folder.path().join("o-net.costs.json").exists());
        assert_eq!(Costs::load(&checkpoint), costs);
        assert_eq!((costs.median_step_seconds(), costs.training_seconds()), (2.0, 6.0));
        std::fs::write(folder.path().join("o-net.costs.json"), "{").unwrap();
        assert_eq!(Costs::load(&checkpoint), Costs::default());
    }
}
