//! How sizes, spacings and bytes are written, everywhere: on the command line, in configuration files, in Python.
//!
//! Three numbers are joined by `x`, `×` or commas: `256x256x160`, `256×256×160`, `256,256,160`. Bytes are a number and a unit:
//! `8GB` are 8·10⁹ and `8GiB` 8·2³⁰; a bare `K`, `M`, `G`, `T` is binary, as in job schedulers. A number
//! without a unit is one of bytes, unless it is so small that a unit was forgotten.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Numbers joined by `x`, `×` or commas; `None` if one is none.
fn joined<T: FromStr>(text: &str) -> Option<Vec<T>> {
    text.split(['x', 'X', '×', ',']).map(|part| part.trim().parse().ok()).collect()
}

/// Reads a shape: `256x256x160`.
///
/// # Errors
/// The reason, without the flag's name.
pub fn parse_shape(text: &str) -> Result<[usize; 3], String> {
    joined(text)
        .and_then(|sides: Vec<usize>| sides.try_into().ok())
        .filter(|sides: &[usize; 3]| sides.iter().all(|side| (1..=1 << 16).contains(side)))
        .ok_or_else(|| format!("'{text}' is no shape of three sides from 1 to 65536; write for example 256x256x160"))
}

/// Reads a spacing in mm, one number or three: `0.5`, `1x1x3`, `2,2,2`.
///
/// # Errors
/// The reason, without the flag's name.
pub fn parse_spacing(text: &str) -> Result<[f64; 3], String> {
    let lengths = joined(text).filter(|lengths: &Vec<f64>| lengths.iter().all(|&mm| mm > 0.0 && mm.is_finite()));
    match lengths.as_deref() {
        Some(&[mm]) => Ok([mm; 3]),
        Some(&[x, y, z]) => Ok([x, y, z]),
        _ => Err(format!("'{text}' is no spacing in mm; write for example 0.5 or 1x1x3")),
    }
}

/// Three numbers that a flag takes and a configuration file lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Three<T>(pub [T; 3]);

impl FromStr for Three<usize> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_shape(text).map(Self)
    }
}

impl FromStr for Three<f64> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_spacing(text).map(Self)
    }
}

impl<T: Serialize> Serialize for Three<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<T: fmt::Display> fmt::Display for Three<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = &self.0;
        write!(f, "{x}×{y}×{z}")
    }
}

/// A number below this, without a unit, lacks one.
const FORGOTTEN: f64 = 4096.0;

/// Reads `8GiB`, `8GB`, `512 MiB`, `1.5G`, `4096`.
///
/// # Errors
/// The reason, without the flag's name, if the text is not a positive size.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let value: f64 = number.parse().map_err(|_| format!("'{text}' is not a size; write for example 8GiB"))?;
    if unit.trim().is_empty() && value < FORGOTTEN && value > 0.0 {
        return Err(format!("'{text}' has no unit; write {text}GiB, or {text}B if bytes are meant"));
    }
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 2f64.powi(10),
        "m" | "mib" => 2f64.powi(20),
        "g" | "gib" => 2f64.powi(30),
        "t" | "tib" => 2f64.powi(40),
        other => return Err(format!("unknown unit '{other}'; use B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB")),
    };
    let bytes = value * unit;
    match bytes >= 1.0 && bytes < u64::MAX as f64 {
        true => Ok(bytes as u64),
        false => Err(format!("'{text}' is out of range; write for example 8GiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_have_one_grammar() {
        for text in ["256x256x160", "256×256×160", "256,256,160", " 256 X 256 x 160 ", "256x256,160"] {
            assert_eq!(parse_shape(text), Ok([256, 256, 160]), "{text}");
        }
        assert_eq!(parse_shape(&Three([256, 256, 160]).to_string()), Ok([256, 256, 160]));
        for text in ["2x2x2.5", "2×2×2.5", "2,2,2.5"] {
            assert_eq!(parse_spacing(text), Ok([2.0, 2.0, 2.5]), "{text}");
        }
        assert_eq!(parse_spacing("0.5"), Ok([0.5; 3]));
    }

    #[test]
    fn other_numbers_are_refused() {
        for bad in ["", "256", "256x256", "1x2x3x4", "0x1x1", "-1x1x1", "1.5x1x1", "65537x1x1", "axbxc", "1;2;3"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
        for bad in ["", "1,2", "0", "-1,1,1", "NaN", "inf,1,1", "1 1 1"] {
            assert!(parse_spacing(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_are_decimal_or_binary_as_their_unit_says() {
        let read = [
            ("8GB", 8_000_000_000),
            ("8GiB", 8 << 30),
            ("8G", 8 << 30),
            ("1.5 kb", 1500),
            (" 1.5 k ", 1536),
            ("2TB", 2_000_000_000_000),
            ("3 MiB", 3 << 20),
            ("4096", 4096),
            ("77B", 77),
        ];
        for (text, bytes) in read {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "8", "77", "GiB", "-1", "1.2.3", "5 parsecs", "0", "99999999999999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
