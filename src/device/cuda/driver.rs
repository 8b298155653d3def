//! The driver's own words, and what a user can do about them.

use cudarc::driver::{DriverError, sys};

use crate::device::device_info::{LEAST_CUDA, LEAST_DRIVER};
use crate::error::{Error, Result};

/// An error of the driver in one line: what was being done, the driver's name for it, its text and a remedy.
pub(super) fn failed(what: &str, error: DriverError) -> Error {
    let code = error.0 as u32;
    // A driver that cannot start has no names either.
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    let (name, text) = (name.unwrap_or_else(|_| "CUDA error".into()), text.unwrap_or_else(|_| "no description".into()));
    let remedy = remedy(code).map(|remedy| format!("; {remedy}")).unwrap_or_default();
    Error::Device(format!("{what}: {name} ({code}: {text}){remedy}"))
}

/// What causes an error code of the driver and what helps, where more can be said than the driver does.
///
/// Source: CUDA driver API reference, `CUresult`; CUDA compatibility guide.
fn remedy(code: u32) -> Option<String> {
    let (cuda, driver) = (format!("{}.{}", LEAST_CUDA.0, LEAST_CUDA.1), LEAST_DRIVER);
    let text = match code {
        2 => "other programs may hold the device's memory",
        34 => "a toolkit's stub was loaded in place of the driver: take folders called stubs out of LD_LIBRARY_PATH",
        46 => {
            "another process holds the device, which is in exclusive mode or a MIG instance in use: wait for it, take another \
             device, or have an administrator run nvidia-smi -c DEFAULT"
        }
        100 => "no GPU is visible: check CUDA_VISIBLE_DEVICES, and that a container was started with GPUs",
        200 | 209 => return Some(format!("the kernels do not fit this device; the driver must be {driver} or newer")),
        218 | 222 => {
            return Some(format!(
                "the driver is too old for the kernels' PTX: install {driver} (CUDA {cuda}) or newer"
            ));
        }
        221 => {
            "the driver's compiler is missing, as in thin containers: add libnvidia-ptxjitcompiler.so.1 of the driver's version \
             (NVIDIA_DRIVER_CAPABILITIES=compute,utility), or build ossnet where nvcc is, which compiles the kernels ahead"
        }
        701 => {
            "the kernel needs more registers or shared memory than the device gives a block: report the device's name with \
             the output of ossnet devices"
        }
        801 => {
            "the driver does not offer this here, as under some vGPU profiles and WSL: OSSNET_ARENA=one takes all memory in one \
             allocation, and training without --graph needs least of the driver"
        }
        803 => {
            "the loaded libcuda.so and the kernel's driver are of different versions: reboot or reload the module after an \
             update, and keep other versions' libraries out of LD_LIBRARY_PATH"
        }
        804 => {
            "a forward-compatibility package (cuda-compat) was loaded, which this GPU does not admit: take it out of \
             LD_LIBRARY_PATH"
        }
        _ => return None,
    };
    Some(text.into())
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

/// Refuses a driver that cannot compile the kernels.
pub(super) fn check_version() -> Result<()> {
    let (major, minor) = version()?;
    if (major, minor) >= LEAST_CUDA {
        return Ok(());
    }
    let problem = format!("the driver supports CUDA {major}.{minor}, and {}.{} is needed", LEAST_CUDA.0, LEAST_CUDA.1);
    Err(Error::Device(format!("{problem}; install {LEAST_DRIVER} or newer, or use --device cpu")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_a_user_meets_name_cause_and_remedy() {
        for (code, parts) in [
            (34, ["stub", "LD_LIBRARY_PATH"]),
            (46, ["exclusive mode", "nvidia-smi"]),
            (221, ["compiler is missing", "libnvidia-ptxjitcompiler"]),
            (222, ["too old", "r530"]),
            (701, ["registers", "report"]),
            (801, ["vGPU", "OSSNET_ARENA"]),
            (803, ["different versions", "reboot"]),
            (804, ["forward-compatibility", "LD_LIBRARY_PATH"]),
        ] {
            let text = remedy(code).unwrap_or_default();
            assert!(parts.iter().all(|part| text.contains(part)), "{code}: {text}");
            assert!(!text.contains('\n') && !text.contains("  "), "{code}: {text}");
        }
        assert_eq!(remedy(700), None);
    }
}
