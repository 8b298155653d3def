//! The roofline model: how fast a step can be at best.
//!
//! A pass of an op takes at least as long as its bytes take through the memory and as its operations take at the device's
//! peak, whichever is longer; a step takes at least as long as all its passes one after the other, plus what the driver needs
//! for each launch. Bytes and operations are those that the ops' pages state: each input and each output once, and the
//! operations that are executed. Nothing here is measured, and no kernel reaches its roof.
//!
//! Beside this bound stands what is expected: the longest of bytes, operations and instructions (`issue.rs`, counted in PTX)
//! over what such kernels reach of each peak (`Efficiency`). That is a guess until a GPU has been measured.
//!
//! Source: Williams, Waterman, Patterson, *Roofline: an insightful visual performance model*, CACM 2009.

use std::collections::BTreeMap;

use super::Workload;
use super::gpus::Speed;
use super::issue::instructions;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::Result;
use crate::memory::{OpCost, Phase};
use crate::models::{Architecture, Family, NetworkConfig};
use crate::nn::optim::OptimizerSettings;
use crate::order;
use crate::tape::Precision;
use crate::train::dry_run::{StepKind, StepProfile};

/// Seconds that the driver needs for a launch on a stream, about: NVIDIA's figures are 2 to 3 µs
/// (*Getting started with CUDA graphs*, 2019).
pub const LAUNCH: f64 = 2.5e-6;

/// Operations a second that `op` can make at most. The few products that stay f32 (of latents and logits) are taken for others.
fn peak(op: &str, speed: &Speed, precision: Precision) -> f64 {
    match (on_tensor_cores(op, precision), precision) {
        (true, Precision::Tf32) => speed.tf32,
        (true, Precision::Bf16) => speed.bf16,
        _ => speed.f32,
    }
}

/// True if tensor cores make the products of `op`.
fn on_tensor_cores(op: &str, precision: Precision) -> bool {
    match precision {
        Precision::F32 => false,
        Precision::Tf32 => PRODUCTS.contains(&op),
        // The folded decoder of inference has kernels in f32 and bf16.
        Precision::Bf16 => op == "occupancy" || PRODUCTS.contains(&op),
    }
}

/// What kernels like these reach of a GPU's peaks: assumptions, with their sources.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Efficiency {
    /// Of the data sheet's bandwidth. Streaming kernels reach 0.85 to 0.92 of it; these have fewer bytes in flight.
    pub memory: f64,
    /// Of the tensor cores' rate: cuDNN's published 29 % of peak for 3³ convolutions on an H200.
    pub tensor: f64,
    /// Of the f32 rate: the share of fused multiply-adds among the products' instructions (0.73 to 0.80, counted), less what
    /// waits for memory.
    pub f32: f64,
    /// Of one instruction a clock and scheduler.
    pub issue: f64,
}

/// The assumptions.
pub const EFFICIENCY: Efficiency = Efficiency { memory: 0.7, tensor: 0.29, f32: 0.6, issue: 0.7 };

/// What a pass is expected to be held up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Bytes.
    Memory,
    /// Operations.
    Arithmetic,
    /// Instructions.
    Issue,
}

impl Limit {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Arithmetic => "arithmetic",
            Self::Issue => "issue",
        }
    }
}

/// Ops whose products tensor cores can make. The patch mapping's are in the Fourier domain, in f32.
const PRODUCTS: [&str; 4] = ["conv3d", "conv_transpose3d", "linear", "norm_act_linear"];

/// Ops that are made of other ops, whose passes are in the record as well.
pub const COMPOSITES: [&str; 2] = ["slabs", "chunked_block"];

/// Seconds that each op took in each phase, in the order of first appearance, from those of each entry of `work` and of the rest
/// of the step; and those of what is neither an op's alone nor an op at all.
pub fn measured(work: &[OpCost], seconds: &[f64]) -> (Vec<(&'static str, &'static str, f64)>, f64) {
    let mut rows: Vec<(&str, &str, f64)> = Vec::new();
    let mut other: f64 = seconds.iter().skip(work.len()).sum();
    for (work, seconds) in work.iter().zip(seconds) {
        if COMPOSITES.contains(&work.op) {
            other += seconds;
            continue;
        }
        let (op, phase) = (work.op, work.phase.name());
        match rows.iter_mut().find(|row| (row.0, row.1) == (op, phase)) {
            Some(row) => row.2 += seconds,
            None => rows.push((op, phase, *seconds)),
        }
    }
    (rows, other)
}

/// How long a step took on a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The GPU.
    pub name: String,
    /// Op, phase, seconds between events.
    pub rows: Vec<(&'static str, &'static str, f64)>,
    /// Seconds of everything else.
    pub rest: f64,
    /// Of the whole step, by the host's clock.
    pub wall: f64,
}

impl Measured {
    /// A step that was taken by the device's clock, which told `seconds`.
    pub fn of_step(name: String, step: &StepProfile, seconds: &[f64]) -> Self {
        let (rows, rest) = measured(&step.work, seconds);
        Self { name, rows, rest, wall: step.seconds.iter().sum() }
    }

    /// Seconds of an op in a phase.
    pub fn of(&self, op: &str, phase: &str) -> Option<f64> {
        self.rows.iter().find(|row| (row.0, row.1) == (op, phase)).map(|row| row.2)
    }

    /// Seconds of the whole step between events.
    pub fn sum(&self) -> f64 {
        self.rows.iter().map(|row| row.2).sum::<f64>() + self.rest
    }
}

/// Which kernels are modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// This engine's: a norm, its residual and its activation are one pass.
    Fused,
    /// The same passes, one kernel for each of their parts: see `unfused`.
    Unfused,
}

/// How many times the bytes of a pass, and how many kernels, it takes op by op, as PyTorch runs without a compiler: a norm (8
/// bytes an element forward), an addition of the residual (12) and an activation (8) are passes of their own where one of 12
/// does here, and so are their gradients (16, 12 and 12 for 24). A patch mapping runs as a convolution over patches that were
/// written and are read again. The second layer of a decoder block is a norm, an activation, a product and the statistics of
/// its result (28 bytes for 8 forward, 44 for 32 backward). A norm, its activation and an average pool are three passes (20.5
/// bytes for 4.5 forward, 32.5 for 13 backward). Everything else is one kernel with the same bytes there, too.
fn unfused(op: &str) -> (f64, u64) {
    match op {
        "norm_act" => (28.0 / 12.0, 3),
        "patch_conv" => (2.0, 2),
        "norm_act_linear" => (72.0 / 40.0, 4),
        "norm_act_pool" => (53.0 / 17.5, 3),
        _ => (1.0, 1),
    }
}

/// All passes of one op in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The op.
    pub op: &'static str,
    /// When.
    pub phase: Phase,
    /// How often.
    pub passes: u64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes.
    pub bytes: f64,
    /// Seconds at best.
    pub seconds: f64,
    /// Of these, seconds of passes that the memory bounds.
    pub memory_seconds: f64,
    /// Seconds that the schedulers need for the instructions at best; 0 for an op that is not counted.
    pub issue_seconds: f64,
    /// Seconds that are expected.
    pub expected_seconds: f64,
    /// What most of these are for.
    pub limit: Limit,
    /// Of the expected seconds, those of passes that each limit holds up: memory, arithmetic, issue.
    shares: [f64; 3],
}

/// The model of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Roofline {
    /// Ops, the slowest first.
    pub rows: Vec<Row>,
    /// Kernels that are launched.
    pub launches: u64,
    /// Seconds for them.
    pub launch_seconds: f64,
}

impl Roofline {
    /// Seconds of the kernels, one after the other.
    pub fn kernel_seconds(&self) -> f64 {
        self.rows.iter().map(|row| row.seconds).sum()
    }

    /// Seconds of the kernels that are expected, one after the other.
    pub fn expected_kernel_seconds(&self) -> f64 {
        self.rows.iter().map(|row| row.expected_seconds).sum()
    }

    /// Seconds of the step that are expected: the host launches while the device works, and is waited for where it is slower.
    pub fn expected_seconds(&self) -> f64 {
        self.expected_kernel_seconds().max(self.launch_seconds)
    }

    /// Seconds of the step at best.
    pub fn seconds(&self) -> f64 {
        self.kernel_seconds() + self.launch_seconds
    }
}

/// What the update of `parameters` weights does: each weight, its gradient and its state once each way.
pub fn update(settings: &OptimizerSettings, parameters: usize) -> OpCost {
    let parameters = parameters as u64;
    let numbers = 3 + 2 * settings.slots() as u64;
    OpCost {
        op: "optimizer",
        layer: "".into(),
        phase: Phase::Optimizer,
        flops: 12 * parameters,
        bytes: 4 * numbers * parameters,
    }
}

/// The model of a step that does `work` in `launches` launches as this engine does it, or one for each pass. A pass of an op is
/// more than one launch where weights are packed or splits summed; so it is op by op, where each part of a pass that is fused here
/// is another one.
pub fn roofline(
    work: &[OpCost],
    speed: &Speed,
    precision: Precision,
    kernels: Kernels,
    launches: Option<u64>,
    launch: f64,
) -> Roofline {
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    let (mut passes, mut apart) = (0, 0);
    for OpCost { op, phase, flops, bytes, .. } in work.iter().filter(|work| !COMPOSITES.contains(&work.op)) {
        let (times, of_pass) = if kernels == Kernels::Unfused { unfused(op) } else { (1.0, 1) };
        passes += 1;
        apart += of_pass - 1;
        let (bytes, flops) = (*bytes as f64 * times, *flops as f64);
        let (memory, compute) = (bytes / speed.bandwidth, flops / peak(op, speed, precision));
        let issue = instructions(op, precision, flops, bytes).unwrap_or(0.0) / speed.issue;
        let arithmetic = if on_tensor_cores(op, precision) { EFFICIENCY.tensor } else { EFFICIENCY.f32 };
        let expected = [memory / EFFICIENCY.memory, compute / arithmetic, issue / EFFICIENCY.issue];
        let longest = (0..3).fold(0, |best, i| if expected[i] > expected[best] { i } else { best });
        let row = rows.entry((op, phase.name())).or_insert(Row {
            op,
            phase: *phase,
            passes: 0,
            flops: 0.0,
            bytes: 0.0,
            seconds: 0.0,
            memory_seconds: 0.0,
            issue_seconds: 0.0,
            expected_seconds: 0.0,
            limit: Limit::Memory,
            shares: [0.0; 3],
        });
        row.passes += 1;
        row.flops += flops;
        row.bytes += bytes;
        row.seconds += memory.max(compute);
        row.memory_seconds += if memory >= compute { memory } else { 0.0 };
        row.issue_seconds += issue;
        row.expected_seconds += expected[longest];
        row.shares[longest] += expected[longest];
        row.limit = [Limit::Memory, Limit::Arithmetic, Limit::Issue]
            [(0..3).fold(0, |best, i| if row.shares[i] > row.shares[best] { i } else { best })];
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    order::by_key_descending(&mut rows, |row| order::of_number(row.seconds));
    let launches = launches.map_or(passes, |counted| counted.max(passes)) + apart;
    Roofline { rows, launches, launch_seconds: launches as f64 * launch }
}

/// The models of a step of `workload` on a GPU: with this engine's kernels, and with one for each part of a pass. A launch
/// takes `launch` seconds.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn models(workload: &Workload, speed: &Speed, launch: f64) -> Result<[Roofline; 2]> {
    // What ops do depends on the sizes only, not on the architecture.
    let cost = workload.dry_run(&Device::plan_for(Target::Cuda(speed.target), UNLIMITED), 1)?;
    let mut work = cost.work;
    let mut launches = None;
    if workload.sizes.step == StepKind::Train {
        work.push(update(&workload.sizes.optimizer, cost.parameters));
        launches = counted_launches(&workload.network.title(), workload.sizes.precision);
    }
    let of = |kernels, launches| roofline(&work, speed, workload.sizes.precision, kernels, launches, launch);
    Ok([of(Kernels::Fused, launches), of(Kernels::Unfused, launches)])
}

/// Launches of a training step of `network` as `kernels/launches.tsv` has them, counted at 64³, which a test holds to
/// what the emulator counts. Names of one network have one count; `None` for a network that has none.
pub fn counted_launches(network: &str, precision: Precision) -> Option<u64> {
    let table = include_str!("../../kernels/launches.tsv");
    let precision = precision.to_string();
    let lines = table.lines().filter(|line| !line.starts_with('#')).skip(1);
    let mut cells = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    let known = |name: &str| NetworkConfig::official(name, Family::Brats).is_ok_and(|it| it.title() == network);
    cells
        .find(|cells| cells.get(1) == Some(&precision.as_str()) && cells.first().is_some_and(|name| known(name)))
        .and_then(|cells| cells.get(2)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::super::gpus::SPEEDS;
    use super::*;

    fn work(op: &'static str, flops: u64, bytes: u64) -> OpCost {
        OpCost { op, layer: "".into(), phase: Phase::Forward, flops, bytes }
    }

    #[test]
    fn the_slower_of_memory_and_arithmetic_counts() {
        let target = crate::device::CudaTarget::KNOWN[0].1;
        let rates = [1e12, 4e12, 8e12];
        let [f32, tf32, bf16] = rates;
        let speed = Speed { name: "", target, source: "", bandwidth: 1e9, f32, tf32, bf16, issue: 1e20 };
        let step = [work("linear", 8_000_000_000_000, 1_000_000), work("add", 1_000, 2_000_000_000)];
        let of = |precision, kernels| roofline(&step, &speed, precision, kernels, None, 0.5);
        let f32 = of(Precision::F32, Kernels::Fused);
        assert_eq!((f32.kernel_seconds(), f32.launches, f32.seconds()), (10.0, 2, 11.0));
        assert_eq!(f32.rows[0].op, "linear");
        assert_eq!(of(Precision::Tf32, Kernels::Fused).kernel_seconds(), 4.0);
        assert_eq!(of(Precision::Bf16, Kernels::Fused).kernel_seconds(), 3.0);
        // What is expected is never below the bound, and names what holds it up.
        assert!(f32.expected_seconds() > f32.kernel_seconds());
        let linear = f32.rows.iter().find(|row| row.op == "linear").unwrap();
        assert!((linear.expected_seconds - 8.0 / EFFICIENCY.f32).abs() < 1e-9 && linear.limit == Limit::Arithmetic);
        let slow = Speed { issue: 1.0, ..speed };
        let slow = roofline(&step, &slow, Precision::F32, Kernels::Fused, None, 0.0);
        assert!(slow.rows.iter().all(|row| row.limit == Limit::Issue && row.issue_seconds > row.seconds));
        let norm = [work("norm_act", 0, 3_000_000_000)];
        let peer = roofline(&norm, &speed, Precision::F32, Kernels::Unfused, None, 0.0);
        assert!((peer.seconds() - 7.0).abs() < 1e-9 && peer.launches == 3);
        // Launches that a pass has beside its kernel are in both lines.
        let counted = |kernels| roofline(&norm, &speed, Precision::F32, kernels, Some(5), 0.0).launches;
        assert_eq!([counted(Kernels::Fused), counted(Kernels::Unfused)], [5, 7]);
    }

    #[test]
    fn the_table_is_in_order_and_known() {
        let launches =
            |name| counted_launches(&NetworkConfig::official(name, Family::Brats).unwrap().title(), Precision::F32);
        assert!(launches("full").is_some_and(|launches| launches > 10));
        assert_eq!(launches("full"), launches("oss-net-c"));
        assert_ne!(launches("full"), launches("o-net"));
        assert_eq!(counted_launches("nobody's", Precision::F32), None);
        assert!(SPEEDS.iter().all(|speed| speed.f32 <= speed.tf32 && speed.tf32 < speed.bf16));
    }
}
