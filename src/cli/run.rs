//! What the computing commands share: the device, and how much is said.

use super::RunArgs;
use super::progress::Verbosity;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::default_cpu_budget;

impl RunArgs {
    /// The device to compute on.
    pub fn device(&self) -> Result<Device> {
        let most = std::thread::available_parallelism().map_or(1, usize::from) * 64;
        if self.threads > most {
            return Err(Error::Usage(format!("--threads {} is more than this machine can use ({most})", self.threads)));
        }
        Device::cpu(self.threads, self.memory_budget.unwrap_or_else(default_cpu_budget))
    }

    /// How much is said.
    pub fn verbosity(&self) -> Verbosity {
        Verbosity::detect(self.quiet)
    }
}

/// Reads `256x256x160`.
pub fn parse_volume(text: &str) -> Result<[usize; 3], String> {
    let sides: Option<Vec<usize>> = text.split('x').map(|side| side.trim().parse().ok().filter(|&n| n > 0)).collect();
    sides
        .and_then(|sides| sides.try_into().ok())
        .filter(|sides: &[usize; 3]| sides.iter().all(|&side| side <= 1 << 16))
        .ok_or_else(|| format!("'{text}' is no shape of three sides from 1 to 65536; write for example 256x256x160"))
}
