//! Whether weights can be right at all: numbers are finite, variances and counts are not negative.
//!
//! A network with one NaN answers NaN everywhere, and a NaN exceeds no threshold: without this check damaged weights would
//! segment every scan as background and say nothing.

use std::path::Path;

use super::{DAMAGED, StateDict};
use crate::{Error, Result};

/// Checks every tensor of a state, read from `path`.
///
/// # Errors
/// [`Error::Data`] naming `path` and the first tensor that cannot be right.
pub fn check(state: &StateDict, path: &Path) -> Result<()> {
    for (name, array) in state.iter() {
        let values = array.to_f32();
        let told = match values.iter().find(|value| !value.is_finite()) {
            Some(value) => format!("the value {value}, which is no finite 32-bit number,"),
            None if name.ends_with("running_var") || name.ends_with("num_batches_tracked") => {
                let Some(value) = values.iter().find(|value| **value < 0.0) else { continue };
                format!("the impossible value {value}")
            }
            None => continue,
        };
        let problem = format!("has {told} in {}", name.escape_debug());
        return Err(Error::data(path, problem, format!("{DAMAGED}, or train it again")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Array, Data};

    #[test]
    fn what_cannot_be_right_is_named() {
        let with = |name: &str, data: Data| {
            let mut state = StateDict::new();
            state.insert("fine", Array::f32([2], [0.0, -f32::MAX]).unwrap());
            state.insert(name, Array::new([1], data).unwrap());
            check(&state, Path::new("w.pt")).err().map(|error| error.to_string())
        };
        assert_eq!(with("a", Data::F32(vec![-1.0])), None);
        assert_eq!(with("n.running_var", Data::F32(vec![0.0])), None);
        assert_eq!(with("n.running_mean", Data::F32(vec![-1.0])), None);
        for (name, data) in [
            ("a", Data::F32(vec![f32::NAN])),
            ("a", Data::F32(vec![f32::NEG_INFINITY])),
            ("a", Data::F16(vec![half::f16::INFINITY])),
            ("a", Data::Bf16(vec![half::bf16::NAN])),
            // Finite in the file, infinite for the network.
            ("a", Data::F64(vec![1e300])),
            ("n.running_var", Data::F32(vec![-1e-6])),
            ("n.num_batches_tracked", Data::I64(vec![-1])),
        ] {
            let error = with(name, data.clone()).unwrap_or_else(|| panic!("{name} {data:?}"));
            assert!(error.starts_with("w.pt: has the ") && error.contains(&format!(" in {name}; ")), "{error}");
        }
    }
}
