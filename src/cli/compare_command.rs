//! The command that repeats a comparison, or goes on with it.

use std::path::Path;

use super::compare::CompareArgs;
use super::compare_plan;
use super::device_args::DeviceChoice;
use crate::models::RecomputeChoice;
use crate::tape::Precision;
use crate::text::for_a_shell;
use crate::train::config::Preset;

/// The command in full, as a shell takes it.
pub(super) fn of(args: &CompareArgs) -> String {
    let planned = compare_plan::is_wanted(args).unwrap_or(false);
    let mut command = format!("ossnet compare --models {}", args.models.join(","));
    let mut say = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            command += &format!(" --{flag} {value}");
        }
    };
    say("data", args.data.as_deref().map(for_a_shell));
    say("precision", (args.precision.precision != Precision::default()).then(|| args.precision.precision.to_string()));
    let recompute = args.recompute.filter(|&recompute| planned || recompute != RecomputeChoice::default());
    say("recompute", recompute.map(|recompute| recompute.to_string()));
    say("folds", args.folds.map(|count| count.to_string()));
    say("fold", args.fold.map(|fold| fold.to_string()));
    say("preset", args.preset.map(|preset| if preset == Preset::Auto { "auto" } else { "sample" }.into()));
    say("time-budget", args.time_budget.map(|seconds| format!("{seconds}s")));
    say("epochs", (!planned || args.epochs.is_some()).then(|| args.sample_epochs().to_string()));
    say("seed", Some(args.seed.to_string()));
    say("threads", Some(args.run.threads.to_string()));
    match (args.device.device, &args.cuda_devices) {
        (_, Some(list)) => say("cuda-devices", Some(list.clone())),
        (DeviceChoice::Cpu, None) => {}
        (DeviceChoice::Cuda(number), None) => say("device", Some(format!("cuda:{number}"))),
    }
    say("memory-budget", args.run.memory_budget.map(|bytes| bytes.to_string()));
    command
}

/// How to go on with the comparison in `folder`.
pub(super) fn again(args: &CompareArgs, folder: &Path) -> String {
    format!("go on with: {} --out {}", of(args), for_a_shell(folder))
}
