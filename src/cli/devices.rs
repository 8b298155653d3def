//! `ossnet devices`: what there is to compute on.

use clap::Args;

use super::output::{plural, print};
use super::provenance::{cpu, print_json};
use super::{RunArgs, kernels};
use crate::device::cpu::SimdLevel;
use crate::device::{self, DeviceInfo, LEAST_CUDA, LEAST_DRIVER};
use crate::error::Result;
use crate::memory::{default_cpu_budget, format_bytes};

/// Flags of `ossnet devices`.
#[derive(Args, Clone, Debug)]
pub struct DevicesArgs {
    /// Load every kernel on a CUDA device instead, and print how long each took and what became of it
    #[arg(long, value_name = "NUMBER", num_args = 0..=1, default_missing_value = "0")]
    kernels: Option<usize>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Lists the CPU and the CUDA devices, or why there are none.
///
/// # Errors
/// Standard output that cannot be written; with `--kernels`, what the driver says.
pub fn run(args: DevicesArgs) -> Result<()> {
    if let Some(ordinal) = args.kernels {
        return kernels::run(ordinal, args.run.json);
    }
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if args.run.threads > 0 { args.run.threads } else { all };
    let (simd, budget) = (SimdLevel::detect(), args.run.memory_budget.unwrap_or_else(default_cpu_budget));
    let cuda = device::cuda::devices();
    if args.run.json {
        let found = cuda.as_deref().unwrap_or_default();
        return print_json(
            serde_json::json!({
                "cpu": { "name": cpu(), "threads": threads, "simd": format!("{simd:?}").to_lowercase(), "default_budget_bytes": budget },
                "cuda": found,
                "no_cuda": cuda.as_ref().err().map(ToString::to_string),
                "least_cuda": LEAST_CUDA,
            }),
            "devices",
        );
    }
    let simd = format!("{simd:?}").to_lowercase();
    let mut text =
        format!("cpu     {}, {simd}, budget {} by default\n", plural(threads, "thread"), format_bytes(budget));
    match cuda {
        Ok(devices) => text.extend(devices.iter().map(line)),
        Err(problem) => text += &format!("cuda    none: {problem}\n"),
    }
    text += &format!(
        "        CUDA needs compute capability 8.0 and a driver for CUDA {}.{} ({LEAST_DRIVER}), or newer\n",
        LEAST_CUDA.0, LEAST_CUDA.1
    );
    print(text)
}

fn line(info: &DeviceInfo) -> String {
    let DeviceInfo { ordinal, name, capability, driver, multiprocessors, .. } = info;
    let older = if capability.0 < 8 { " (too old)" } else { "" };
    let old_driver = if *driver < LEAST_CUDA { " (too old)" } else { "" };
    format!(
        "cuda:{ordinal}  {name}, compute capability {}.{}{older}, {multiprocessors} multiprocessors, {} of {} free, driver for CUDA {}.{}{old_driver}\n",
        capability.0,
        capability.1,
        format_bytes(info.free),
        format_bytes(info.memory),
        driver.0,
        driver.1
    )
}
