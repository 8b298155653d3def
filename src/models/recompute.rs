//! How much of a step's forward pass the backward pass recomputes instead of finding it in memory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tape::{Tape, Var};

/// A level of recomputation: each higher one takes less memory and more time, with gradients equal to rounding.
///
/// | level | what the backward pass finds in memory |
/// |---|---|
/// | 0 | pre-activations; norms and activations are recomputed |
/// | 1 | of the decoder (of a U-Net: of its way down) the blocks' boundaries only; the last block runs in chunks |
/// | 2 | also of the encoder (of a U-Net: of its way up) the blocks' boundaries only; encoder blocks run in slabs |
/// | 3 | every second boundary of the decoder, whose blocks run in chunks of coordinates (U-Nets: as 2) |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
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
}

impl Recompute {
    /// All levels, the fastest first.
    pub const ALL: [Recompute; 4] = [Self::Activations, Self::Decoder, Self::Blocks, Self::Chunks];

    /// Its number, 0 to 3.
    pub fn level(self) -> u8 {
        self as u8
    }
}

impl From<Recompute> for u8 {
    fn from(level: Recompute) -> Self {
        level.level()
    }
}

impl TryFrom<u8> for Recompute {
    type Error = Error;

    fn try_from(level: u8) -> Result<Self> {
        let known = Self::ALL.get(usize::from(level)).copied();
        known.ok_or_else(|| Error::Usage(format!("there is no recompute level {level}; use 0, 1, 2 or 3")))
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.level().fmt(f)
    }
}

/// What `--recompute` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecomputeChoice {
    /// This level.
    Level(Recompute),
    /// The fastest level whose plan fits the memory budget.
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
        match text.trim() {
            "auto" => Ok(Self::Auto),
            text => level(text)
                .map(Self::Level)
                .ok_or_else(|| format!("'{text}' is no recompute level; use 0, 1, 2, 3 or auto")),
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
        for level in Recompute::ALL {
            assert_eq!(level.to_string().parse(), Ok(RecomputeChoice::Level(level)));
            assert_eq!(serde_json::from_str::<Recompute>(&serde_json::to_string(&level).unwrap()).unwrap(), level);
        }
        assert_eq!("auto".parse(), Ok(RecomputeChoice::Auto));
        for bad in ["", "4", "-1", "none", "256"] {
            assert!(bad.parse::<RecomputeChoice>().unwrap_err().contains("0, 1, 2, 3 or auto"), "{bad}");
        }
        assert!(serde_json::from_str::<Recompute>("4").is_err());
    }
}
