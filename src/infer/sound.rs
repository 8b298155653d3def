//! An answer that is no number is an error, never a class: NaN exceeds no threshold and would come out as background.

use crate::error::{Error, Result};
use crate::ops::first_not_finite;
use crate::tensor::Tensor;

/// Checks a network's logits.
///
/// # Errors
/// [`Error::NoAnswer`] if one is NaN or infinite; no memory.
pub(super) fn check(logits: &Tensor) -> Result<()> {
    let device = logits.device();
    match device.in_op("finite", || first_not_finite(device, &[logits]))? {
        None => Ok(()),
        Some(_) => Err(Error::NoAnswer { case: None }),
    }
}
