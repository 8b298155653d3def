//! Recomputation chosen unit by unit: what the backward pass does about each stretch of a network.

use std::fmt;
use std::str::FromStr;

use super::Recompute;
use crate::error::{Error, Result};

/// What the backward pass does about the values between a unit's input and output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitChoice {
    /// It finds them in memory, but for what is an element-wise pass away from them.
    #[default]
    Keep,
    /// It recomputes them from the unit's input; the output is kept.
    Recompute,
    /// The unit runs in slabs or chunks, so that its largest values never exist whole. An encoder's block keeps the others, a
    /// decoder's its output.
    Pieces,
    /// It runs in slabs or chunks and recomputes: an encoder's block keeps its output, of a decoder's that is recomputed as well.
    Lean,
}

impl UnitChoice {
    /// All choices.
    pub const ALL: [UnitChoice; 4] = [Self::Keep, Self::Recompute, Self::Pieces, Self::Lean];

    /// True if the unit runs in slabs or chunks.
    pub(super) fn in_pieces(self) -> bool {
        matches!(self, Self::Pieces | Self::Lean)
    }

    /// True if the unit's values are recomputed from its input.
    pub(super) fn recomputes(self) -> bool {
        matches!(self, Self::Recompute | Self::Lean)
    }

    /// Its letter in a schedule's text.
    pub fn letter(self) -> char {
        ['k', 'r', 'p', 'l'][self as usize]
    }
}

/// A stretch of a network whose recomputation is chosen by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The path of its layers.
    pub layer: String,
    /// The choices that differ for it; the first is [`UnitChoice::Keep`].
    pub choices: &'static [UnitChoice],
    /// What each level of recomputation means for it.
    pub levels: [UnitChoice; 4],
}

/// A choice for each unit of a network, in the order of the forward pass: as text a letter a unit, for example `rrrkkkkkk`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Schedule {
    units: u8,
    /// Two bits a unit, the first unit's lowest.
    choices: u128,
}

impl Schedule {
    /// Most units of a schedule.
    pub const MOST_UNITS: usize = 64;

    /// A choice for each unit; `None` of none or of more than [`Schedule::MOST_UNITS`].
    pub fn new(choices: &[UnitChoice]) -> Option<Self> {
        let bits = |sum, (n, choice): (usize, &UnitChoice)| sum | (*choice as u128) << (2 * n);
        (1..=Self::MOST_UNITS)
            .contains(&choices.len())
            .then(|| Self { units: choices.len() as u8, choices: choices.iter().enumerate().fold(0, bits) })
    }

    /// The choices, unit by unit.
    pub fn choices(self) -> Vec<UnitChoice> {
        let choice = |n: u8| UnitChoice::ALL[(self.choices >> (2 * n)) as usize & 3];
        (0..self.units).map(choice).collect()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.choices().into_iter().map(UnitChoice::letter).collect::<String>())
    }
}

/// As its text: every choice shows.
impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choice = |letter| UnitChoice::ALL.into_iter().find(|choice| choice.letter() == letter);
        let choices: Option<Vec<UnitChoice>> = text.chars().map(choice).collect();
        choices
            .as_deref()
            .and_then(Self::new)
            .ok_or_else(|| format!("'{text}' is no schedule; write a letter k, r, p or l for each unit of the network"))
    }
}

impl Recompute {
    /// The choice of each of a network's `units`, which is what the level or the schedule means for it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a schedule of other units.
    pub fn choices(self, units: &[Unit]) -> Result<Vec<UnitChoice>> {
        let Self::Units(schedule) = self else {
            let level = usize::from(self.level().unwrap_or(0));
            return Ok(units.iter().map(|unit| unit.levels[level]).collect());
        };
        let choices = schedule.choices();
        if choices.len() != units.len() {
            return Err(Error::Usage(format!(
                "--recompute {schedule} has letters for {} units and the network has {}; use a level or auto",
                choices.len(),
                units.len()
            )));
        }
        match units.iter().zip(&choices).find(|(unit, choice)| !unit.choices.contains(choice)) {
            None => Ok(choices),
            Some((unit, choice)) => {
                let known: Vec<String> = unit.choices.iter().map(|choice| choice.letter().to_string()).collect();
                let (letter, known) = (choice.letter(), known.join(", "));
                Err(Error::Usage(format!("--recompute {schedule}: {} has no choice {letter}; use {known}", unit.layer)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Architecture, OssNetConfig, UNetConfig};
    use crate::rng::Rng;

    #[test]
    fn schedules_are_read_and_written() {
        let mut rng = Rng::new(4);
        for units in 1..=Schedule::MOST_UNITS {
            let choices: Vec<_> = (0..units).map(|_| UnitChoice::ALL[rng.below(4) as usize]).collect();
            let schedule = Schedule::new(&choices).unwrap();
            assert_eq!(schedule.choices(), choices);
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
            assert_eq!(schedule.to_string().len(), units);
            let stored = serde_json::to_string(&Recompute::Units(schedule)).unwrap();
            assert_eq!(serde_json::from_str::<Recompute>(&stored).unwrap(), Recompute::Units(schedule));
        }
        assert!(Schedule::new(&[]).is_none() && Schedule::new(&[UnitChoice::Keep; 65]).is_none());
        for bad in ["", "kx", "K", "k r"] {
            assert!(bad.parse::<Schedule>().unwrap_err().contains("k, r, p or l"), "{bad}");
        }
    }

    #[test]
    fn levels_are_schedules_of_each_network() {
        let text = |architecture: &dyn Architecture, level: Recompute| {
            Schedule::new(&level.choices(&architecture.units()).unwrap()).unwrap().to_string()
        };
        let unet = UNetConfig::standard(3, 1, 2);
        let levels = Recompute::LEVELS;
        assert_eq!(levels.map(|level| text(&unet, level)), ["kkkkkkkkk", "rrrrrkkkk", "rrrrrrrrr", "rrrrrrrrr"]);
        let oss_net = OssNetConfig::sample("oss-net-c", 1, [64; 3]).unwrap();
        let (encoder, decoder) = (oss_net.encoder_channels.len(), oss_net.blocks);
        assert_eq!(decoder, 5);
        let expected = [("k", "kkkkk"), ("k", "rrrrp"), ("l", "rrrrp"), ("l", "lplpp")];
        assert_eq!(levels.map(|level| text(&oss_net, level)), expected.map(|(e, d)| e.repeat(encoder) + d));
    }

    #[test]
    fn schedules_of_other_networks_are_refused() {
        let unet = UNetConfig::standard(3, 1, 2);
        let refusal = |text: &str| {
            let schedule = Recompute::Units(text.parse().unwrap());
            schedule.choices(&unet.units()).unwrap_err().to_string()
        };
        assert!(refusal("kkr").contains("3 units and the network has 9"), "{}", refusal("kkr"));
        let slabs = refusal("krrrrrrpk");
        assert!(slabs.contains("model.1.submodule.2 has no choice p; use k, r"), "{slabs}");
        assert!(Recompute::Units("krrkrrkrk".parse().unwrap()).choices(&unet.units()).is_ok());
    }
}
