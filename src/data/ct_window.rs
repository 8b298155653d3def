//! Windows of Hounsfield units: what is kept of a CT before it is normalised.
//!
//! Air is −1000, water 0, dense bone beyond 1000; metal and the padding outside the field of view lie far outside and would
//! dominate mean and spread. Values beyond a window's limits are set to the limit.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::{Error, Result};

/// Limits of the stored values, low and high.
pub type Limits = [f32; 2];

/// The windows that have a name: what they are for, low, high.
pub const WINDOWS: [(&str, Limits); 6] = [
    ("abdomen", [-200.0, 300.0]),
    ("liver", [-100.0, 250.0]),
    ("lung", [-1000.0, 400.0]),
    ("bone", [-500.0, 1800.0]),
    ("brain", [-20.0, 100.0]),
    ("wide", [-1024.0, 1024.0]),
];

/// A window as the user gives it: a name of [`WINDOWS`], `LOW,HIGH`, or `none`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CtWindow(pub Option<Limits>);

/// The limits of a named window.
///
/// # Panics
/// If there is no window of that name.
pub fn limits(name: &str) -> Limits {
    let found = WINDOWS.iter().find(|(window, _)| *window == name);
    found.unwrap_or_else(|| panic!("no window is called {name}")).1
}

/// True if a channel's name says that it holds Hounsfield units, as the Decathlon and nnU-Net have it.
pub fn is_ct(channel: &str) -> bool {
    channel.eq_ignore_ascii_case("ct")
}

impl CtWindow {
    /// The limits: those of the largest f32 if nothing is to be cut.
    pub fn limits(self) -> Limits {
        self.0.unwrap_or([f32::MIN, f32::MAX])
    }
}

/// Two numbers, as a configuration has them.
impl Serialize for CtWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.limits().serialize(serializer)
    }
}

impl FromStr for CtWindow {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self(None));
        }
        if let Some((_, limits)) = WINDOWS.iter().find(|(name, _)| *name == text) {
            return Ok(Self(Some(*limits)));
        }
        let numbers: Vec<f32> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
        match numbers[..] {
            [low, high] if low < high && low.is_finite() && high.is_finite() && text.split(',').count() == 2 => {
                Ok(Self(Some([low, high])))
            }
            _ => {
                let names = WINDOWS.map(|(name, _)| name).join(", ");
                Err(Error::Usage(format!(
                    "'{text}' is no window of Hounsfield units; give a name ({names}), LOW,HIGH, for example -200,300, or none"
                )))
            }
        }
    }
}

impl fmt::Display for CtWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "none"),
            Some(limits) => match WINDOWS.iter().find(|(_, named)| *named == limits) {
                Some((name, _)) => write!(f, "{name}"),
                None => write!(f, "{},{}", limits[0], limits[1]),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_named_or_given() {
        assert_eq!("abdomen".parse::<CtWindow>().unwrap().0, Some([-200.0, 300.0]));
        assert_eq!("-20.5, 80".parse::<CtWindow>().unwrap().0, Some([-20.5, 80.0]));
        assert_eq!("none".parse::<CtWindow>().unwrap().0, None);
        for bad in ["", "belly", "1,2,3", "300,-200", "5,5", "nan,1", "-inf,3", "1,x,2"] {
            let message = bad.parse::<CtWindow>().unwrap_err().to_string();
            assert!(message.contains("abdomen") && message.contains("-200,300"), "{bad}: {message}");
        }
        for text in ["abdomen", "lung", "none", "-3,4.5"] {
            assert_eq!(text.parse::<CtWindow>().unwrap().to_string(), text);
        }
        // As documented (docs/data.md); runs that name one mean these numbers.
        let known = [
            ("abdomen", -200.0, 300.0),
            ("liver", -100.0, 250.0),
            ("lung", -1000.0, 400.0),
            ("bone", -500.0, 1800.0),
            ("brain", -20.0, 100.0),
            ("wide", -1024.0, 1024.0),
        ];
        assert_eq!(known.map(|(name, low, high)| (name, [low, high])), WINDOWS);
    }
}
