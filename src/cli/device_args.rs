//! What the computing commands share: the device, and how much is said.

#![cfg_attr(not(feature = "infer"), allow(dead_code))] // a build without commands that compute

use std::str::FromStr;

use clap::Args;

use super::RunArgs;
use super::output::plural;
use super::progress::{Shown, Verbosity};
use crate::device::cpu::SimdLevel;
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::memory::{default_cpu_budget, format_bytes, size};
use crate::tape::Precision;

/// True if a variable that stands for a flag is set to anything but nothing, `0`, `no`, `off` or `false`.
pub fn is_set(variable: &str) -> bool {
    let value = std::env::var(variable).unwrap_or_default().to_ascii_lowercase();
    !["", "0", "no", "off", "false", "n", "f"].contains(&value.trim())
}

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
    #[arg(long, default_value = "cpu", value_name = "DEVICE", env = "OSSNET_DEVICE", hide_env = true)]
    #[arg(help_heading = "Run")]
    pub device: DeviceChoice,
}

/// The flag of the commands that compute with a network.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PrecisionArgs {
    /// Number format of the network's activations and products; tf32 and bf16 on CUDA
    #[arg(long, value_enum, default_value_t, help_heading = "Run")]
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
        SimdLevel::wish()?;
        if let (DeviceChoice::Cpu, Some(budget)) = (place, self.memory_budget) {
            size::set_host_budget(budget);
        }
        let device = match place {
            DeviceChoice::Cpu => Device::cpu(self.threads, self.memory_budget.unwrap_or_else(default_cpu_budget)),
            DeviceChoice::Cuda(ordinal) => Device::cuda(ordinal, self.memory_budget.unwrap_or(0)),
        }?;
        if let Backend::Cuda(cuda) = device.backend() {
            let verbosity = self.verbosity();
            cuda.on_compiling(move |done, all| verbosity.compiling(done, all));
        }
        if self.verbose() {
            let (name, threads, budget) = (device.name(), plural(device.threads(), "thread"), device.budget());
            let simd = format!("{:?}", device.simd()).to_lowercase();
            let budget = format_bytes(budget);
            self.verbosity().say(format!("ossnet {}: {name}, {threads}, {simd}, at most {budget}", super::VERSION));
        }
        Ok(device)
    }

    /// True if `--quiet` is given, or its variable is set and `--verbose` does not say otherwise.
    fn quiet(&self) -> bool {
        self.quiet || !self.verbose && is_set("OSSNET_QUIET")
    }

    /// True if `--verbose` is given, or its variable is set and nothing asks for quiet.
    pub(super) fn verbose(&self) -> bool {
        self.verbose || !self.quiet() && is_set("OSSNET_VERBOSE")
    }

    /// How much is said.
    pub fn verbosity(&self) -> Verbosity {
        match (self.progress, self.quiet()) {
            (Shown::Json, false) => Verbosity::Json,
            (_, quiet) => Verbosity::detect(quiet),
        }
    }
}
