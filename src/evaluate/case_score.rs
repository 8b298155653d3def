//! The scores of a case, as results files hold them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Scores of one validation case; with several classes, their mean without the background.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseScore {
    /// Name of the case, e.g. `pycortexS1`.
    pub name: String,
    /// Dice (0 to 1).
    #[serde(with = "finite_or_null")]
    pub dice: f64,
    /// Intersection over union (0 to 1).
    #[serde(with = "finite_or_null")]
    pub iou: f64,
    /// Scores of each class; empty when there is only one beside the background.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassScore>,
}

/// Scores of one class of one case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Name of the class, e.g. `liver`.
    pub name: String,
    /// Dice (0 to 1).
    #[serde(with = "finite_or_null")]
    pub dice: f64,
    /// Intersection over union (0 to 1).
    #[serde(with = "finite_or_null")]
    pub iou: f64,
    /// True if the labels lack the class: then its scores count in no mean.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
}

/// JSON has no NaN: such a figure is written as `null` and read back as NaN.
pub(crate) mod finite_or_null {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}
