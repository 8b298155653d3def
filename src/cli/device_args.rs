//! What the computing commands share: the device, and how much is said.

#![cfg_attr(not(feature = "infer"), allow(dead_code))] // a build without commands that compute

use std::str::FromStr;

use clap::Args;

use super::RunArgs;
use super::progress::Verbosity;
use crate::device::{self, Device};
use crate::error::{Error, Result};
use crate::memory::default_cpu_budget;
use crate::tape::Precision;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// On the CPU's threads.
    #[default]
    Cpu,
    /// On the CUDA device of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(DeviceChoice::Cpu),
            None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
            Some(("cuda", number)) if number.parse::<usize>().is_ok() => {
                Ok(DeviceChoice::Cuda(number.parse().unwrap_or(0)))
            }
            _ => Err(format!("'{text}' is no device; write cpu, cuda or cuda:1 (ossnet devices lists them)")),
        }
    }
}

/// The flag of the commands that run on any device.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct DeviceArgs {
    /// Where to compute: cpu, cuda, cuda:1, ... (ossnet devices lists them)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// The flag of the commands that compute with a network.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PrecisionArgs {
    /// Number format of the network's activations and products; tf32 and bf16 on CUDA
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
}

impl PrecisionArgs {
    /// The format, which `device` can compute in.
    pub fn on(self, device: &Device) -> Result<Precision> {
        self.precision.check(device.target(), "--device cuda")?;
        Ok(self.precision)
    }
}

impl DeviceArgs {
    /// The device, with the budget and threads of `run`.
    pub fn open(self, run: &RunArgs) -> Result<Device> {
        run.open(self.device)
    }
}

impl RunArgs {
    /// The CPU.
    pub fn device(&self) -> Result<Device> {
        self.open(DeviceChoice::Cpu)
    }

    /// A device.
    pub fn open(&self, place: DeviceChoice) -> Result<Device> {
        let most = std::thread::available_parallelism().map_or(1, usize::from) * 64;
        if self.threads > most {
            return Err(Error::Usage(format!("--threads {} is more than this machine can use ({most})", self.threads)));
        }
        match place {
            DeviceChoice::Cpu => Device::cpu(self.threads, self.memory_budget.unwrap_or_else(default_cpu_budget)),
            DeviceChoice::Cuda(ordinal) => Device::cuda(
                ordinal,
                match self.memory_budget {
                    Some(budget) => budget,
                    None => device::cuda::default_budget(ordinal)?,
                },
            ),
        }
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
