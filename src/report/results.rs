//! The results object: `results.json`, and what `--json` prints.
//!
//! Keys come in the order of the fields. A figure that is not finite (the loss of a run that diverged, the Dice of a
//! model that was not evaluated) is `null` in JSON and NaN here.

use std::path::Path;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::evaluate::case_score::finite_or_null;
pub use crate::evaluate::case_score::{CaseScore, ClassScore};
use crate::{Error, Result};

/// All figures of one comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// One entry a trained model, in the order of training.
    pub models: Vec<ModelResult>,
    /// Trivial methods that a model has to beat.
    pub baselines: Vec<BaselineResult>,
    /// The device the models ran on, e.g. `cpu (AVX-512)`.
    pub device: String,
    /// Threads of the CPU pool.
    pub threads: usize,
    /// Seed of initialisation, order of the cases, sampling and augmentation.
    pub seed: u64,
    /// The budget of training that all models had, in words; empty where they had the sample's settings.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub budget: String,
    /// Version of this program, with its features.
    pub version: String,
}

/// What one model costs and reaches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelResult {
    /// Published name, e.g. `OSS-Net C`.
    pub name: String,
    /// Trainable scalars.
    pub parameters: u64,
    /// Mean Dice over the validation cases (0 to 1), evaluated at all voxels.
    #[serde(with = "finite_or_null")]
    pub dice: f64,
    /// Mean intersection over union over the validation cases (0 to 1).
    #[serde(with = "finite_or_null")]
    pub iou: f64,
    /// Scores of every validation case.
    pub cases: Vec<CaseScore>,
    /// Largest number of bytes held at once during training.
    pub peak_bytes: u64,
    /// Who held those bytes at that moment.
    pub peak_by_role: RoleBytes,
    /// Median seconds of a training step.
    #[serde(with = "finite_or_null")]
    pub step_seconds: f64,
    /// Seconds of training and evaluation together.
    #[serde(with = "finite_or_null")]
    pub total_seconds: f64,
    /// Scans that one training step takes.
    #[serde(default)]
    pub scans_per_step: u64,
    /// Peak of a training step of one scan, planned; 0 where that is not known.
    #[serde(default)]
    pub scan_peak_bytes: u64,
    /// Passes over the training cases.
    #[serde(default)]
    pub epochs: u64,
    /// Optimiser steps.
    #[serde(default)]
    pub steps: u64,
    /// Mean training loss of the last epoch.
    #[serde(default = "nan", with = "finite_or_null")]
    pub final_loss: f64,
}

/// What a trivial method reaches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineResult {
    /// What is done, e.g. `mean of the training masks`.
    pub name: String,
    /// Mean Dice over the validation cases (0 to 1).
    #[serde(with = "finite_or_null")]
    pub dice: f64,
    /// Mean intersection over union over the validation cases (0 to 1).
    #[serde(default = "nan", with = "finite_or_null")]
    pub iou: f64,
    /// Scores of every validation case.
    pub cases: Vec<CaseScore>,
}

impl ModelResult {
    /// Bytes at the peak of a training step of one scan; of results that do not know them those of their own step.
    pub fn scan_bytes(&self) -> u64 {
        if self.scan_peak_bytes > 0 { self.scan_peak_bytes } else { self.peak_bytes }
    }

    /// Median seconds of a training step for each of its scans.
    pub fn scan_seconds(&self) -> f64 {
        self.step_seconds / self.scans_per_step.max(1) as f64
    }
}

impl Results {
    /// The object as indented JSON with a final newline; the same bytes for the same figures.
    ///
    /// # Errors
    /// [`Error::Usage`] if serialisation fails, which no value of these types makes it do.
    pub fn to_json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::Usage(format!("results: {error}")))?;
        text.push('\n');
        Ok(text)
    }

    /// Reads the text of `path` (a `results.json`).
    ///
    /// # Errors
    /// [`Error::Data`] naming `path` when the text is not such an object.
    pub fn from_json(path: impl AsRef<Path>, text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::data(path, format!("not a results object ({error})"), "run `ossnet compare` again"))
    }

    /// Names of the validation cases, in the order in which they first appear.
    pub fn case_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let cases = self.models.iter().map(|model| &model.cases).chain(self.baselines.iter().map(|row| &row.cases));
        for case in cases.flatten() {
            if !names.contains(&case.name.as_str()) {
                names.push(&case.name);
            }
        }
        names
    }
}

/// The score of `case` among `cases`.
pub(super) fn score_of<'a>(cases: &'a [CaseScore], case: &str) -> Option<&'a CaseScore> {
    cases.iter().find(|score| score.name == case)
}

/// Bytes by role, in the ledger's order; an object `{"parameter": 1234, …}` in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleBytes(pub Vec<(String, u64)>);

impl RoleBytes {
    /// Bytes of `role`, 0 when it is absent.
    pub fn get(&self, role: &str) -> u64 {
        self.0.iter().find(|(name, _)| name == role).map_or(0, |(_, bytes)| *bytes)
    }

    /// Sum over all roles.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

impl<S: Into<String>> FromIterator<(S, u64)> for RoleBytes {
    fn from_iter<I: IntoIterator<Item = (S, u64)>>(roles: I) -> Self {
        RoleBytes(roles.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect())
    }
}

impl Serialize for RoleBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (role, bytes) in &self.0 {
            map.serialize_entry(role, bytes)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RoleBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = RoleBytes;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of bytes by role")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RoleBytes, A::Error> {
                let mut roles = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    roles.push(pair);
                }
                Ok(RoleBytes(roles))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn nan() -> f64 {
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    #[test]
    fn the_object_has_the_promised_keys_in_order() {
        let json = fixtures::results().to_json().unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&value), ["models", "baselines", "device", "threads", "seed", "version"]);
        let promised = [
            "name",
            "parameters",
            "dice",
            "iou",
            "cases",
            "peak_bytes",
            "peak_by_role",
            "step_seconds",
            "total_seconds",
        ];
        assert_eq!(keys(&value["models"][0])[..promised.len()], promised);
        assert_eq!(keys(&value["models"][0]["cases"][0]), ["name", "dice", "iou"]);
        assert_eq!(keys(&value["models"][0]["peak_by_role"])[..2], ["parameter", "gradient"]);
        assert_eq!(keys(&value["baselines"][0]), ["name", "dice", "iou", "cases"]);
    }

    #[test]
    fn json_goes_there_and_back() {
        let results = fixtures::results();
        assert_eq!(Results::from_json("results.json", &results.to_json().unwrap()).unwrap(), results);
    }

    #[test]
    fn a_figure_that_is_not_finite_is_null_and_comes_back_as_nan() {
        let mut results = fixtures::results();
        results.models[0].dice = f64::NAN;
        results.models[0].final_loss = f64::INFINITY;
        let json = results.to_json().unwrap();
        assert!(json.contains("\"dice\": null") && json.contains("\"final_loss\": null"));
        let back = Results::from_json("results.json", &json).unwrap();
        assert!(back.models[0].dice.is_nan() && back.models[0].final_loss.is_nan());
    }

    #[test]
    fn foreign_text_is_an_error_that_names_the_file() {
        let error = Results::from_json("other.json", "[1]").unwrap_err().to_string();
        assert!(error.starts_with("other.json: not a results object"), "{error}");
    }
}
