//! How much of a step's forward pass the backward pass recomputes instead of finding it in memory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};

/// What is recomputed: a level, or a choice for each unit of the network. Gradients are equal to rounding.
///
/// Each higher level takes less memory and more time. A level is a schedule that every network has a name for
/// ([`Recompute::choices`]).
///
/// | level | what the backward pass finds in memory |
/// |---|---|
/// | 0 | pre-activations; norms and activations are recomputed |
/// | 1 | of the decoder (of a U-Net: of its way down) the blocks' boundaries only; the last block runs in chunks |
/// | 2 | also of the encoder (of a U-Net: of its way up) the blocks' boundaries only; encoder blocks run in slabs |
/// | 3 | every second boundary of the decoder, whose blocks run in chunks of coordinates (U-Nets: as 2) |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub enum Recompute {
    /// Level 0.
    #[default]
    Activations,
    /// Level 1.
    Decoder,
    /// Level 2.
    Blocks,
    /// Level 3.
    Chunks,
    /// A choice for each unit.
    Units(Schedule),
}

/// As files have it: a level's number, or a schedule's letters.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Level(u8),
    Units(String),
}

impl Recompute {
    /// All levels, the fastest first.
    pub const LEVELS: [Recompute; 4] = [Self::Activations, Self::Decoder, Self::Blocks, Self::Chunks];

    /// A level's number, 0 to 3; `None` of a schedule.
    pub fn level(self) -> Option<u8> {
        Self::LEVELS.iter().position(|&level| level == self).map(|level| level as u8)
    }
}

impl From<Recompute> for Stored {
    fn from(recompute: Recompute) -> Self {
        recompute.level().map_or_else(|| Self::Units(recompute.to_string()), Self::Level)
    }
}

impl TryFrom<Stored> for Recompute {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        match stored {
            Stored::Level(level) => level.try_into(),
            Stored::Units(text) => text.parse().map(Self::Units).map_err(Error::Usage),
        }
    }
}

impl TryFrom<u8> for Recompute {
    type Error = Error;

    fn try_from(level: u8) -> Result<Self> {
        let known = Self::LEVELS.get(usize::from(level)).copied();
        known.ok_or_else(|| Error::Usage(format!("there is no recompute level {level}; use 0, 1, 2 or 3")))
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Units(schedule) => schedule.fmt(f),
            _ => self.level().unwrap_or_default().fmt(f),
        }
    }
}

/// What `--recompute` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecomputeChoice {
    /// This level, or this schedule.
    Level(Recompute),
    /// The fastest schedule whose plan fits the memory budget.
    Auto,
}

impl Default for RecomputeChoice {
    fn default() -> Self {
        Self::Level(Recompute::default())
    }
}

impl FromStr for RecomputeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = |text: &str| Recompute::try_from(text.parse::<u8>().ok()?).ok();
        let units = |text: &str| text.parse().map(Recompute::Units).ok();
        match text.trim() {
            "auto" => Ok(Self::Auto),
            text => level(text).or_else(|| units(text)).map(Self::Level).ok_or_else(|| {
                format!("'{text}' is no recompute level; use 0, 1, 2, 3 or auto, or a schedule as auto prints it")
            }),
        }
    }
}

impl fmt::Display for RecomputeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => level.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// Runs `work`; under `condition` so that the backward pass recomputes everything but its result.
pub(super) fn kept_if(condition: bool, tape: &Tape, work: impl FnOnce() -> Result<Var>) -> Result<Var> {
    if !condition {
        return work();
    }
    let result = tape.recomputed(work)?;
    tape.keep(&result);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_written() {
        for level in Recompute::LEVELS {
            assert_eq!(level.to_string().parse(), Ok(RecomputeChoice::Level(level)));
            assert_eq!(serde_json::from_str::<Recompute>(&serde_json::to_string(&level).unwrap()).unwrap(), level);
        }
        assert_eq!("auto".parse(), Ok(RecomputeChoice::Auto));
        for bad in ["", "4", "-1", "none", "256", "kq"] {
            assert!(bad.parse::<RecomputeChoice>().unwrap_err().contains("0, 1, 2, 3 or auto"), "{bad}");
        }
        assert_eq!("krl".parse(), Ok(RecomputeChoice::Level(Recompute::Units("krl".parse().unwrap()))));
        for bad in ["4", "\"1\"", "\"kx\""] {
            assert!(serde_json::from_str::<Recompute>(bad).is_err(), "{bad}");
        }
    }
}
