//! The driver's own words.

use cudarc::driver::{DriverError, sys};

use crate::error::{Error, Result};

/// An error of the driver in one line: what was being done, the driver's name for it and its text.
pub(super) fn failed(what: &str, error: DriverError) -> Error {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    let (name, text) = (name.unwrap_or_else(|_| "CUDA error".into()), text.unwrap_or_else(|_| "no description".into()));
    let remedy = match name.as_str() {
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION" | "CUDA_ERROR_INVALID_PTX" => "; the driver must be r580 or newer",
        "CUDA_ERROR_OUT_OF_MEMORY" => "; other programs may hold the device's memory",
        _ => "",
    };
    Error::Device(format!("{what}: {name} ({text}){remedy}"))
}

/// The CUDA version that the driver supports, major and minor.
pub(super) fn version() -> Result<(u32, u32)> {
    let mut version = 0;
    // SAFETY: an out pointer to an i32.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|e| failed("asking for the driver's version", e))?;
    Ok((version as u32 / 1000, version as u32 % 1000 / 10))
}
