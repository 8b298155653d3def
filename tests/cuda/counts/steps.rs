//! What a training step asks of the driver: launches, copies, waiting.

use cuemu::Config;
use ossnet::device::Device;
use ossnet::models::network::names;
use ossnet::planner::Workload;
use ossnet::tape::Precision;
use ossnet::train::dry_run::{StepKind, StepSizes, SyntheticStep};

use super::table::Row;

/// Columns of kernels/steps.tsv.
pub const HEADS: [&str; 7] =
    ["model", "size", "launches", "copies and fills", "synchronisations", "bytes to host", "bytes to device"];

/// Models whose steps are counted.
const MODELS: [&str; 4] = ["o-net", "oss-net-c", "unet3d", "unet2d"];

/// The second step of each model: the first also loads modules.
pub fn measure() -> Vec<Row> {
    let emulator = cuemu::preload().unwrap();
    emulator.configure(Config { threads: 2, ..Config::default() });
    let row = |model: &&str| {
        let workload = Workload::official(model, StepSizes::new([32; 3], 1, 32)).unwrap();
        let device = Device::cuda(0, 1 << 30).unwrap();
        let mut stage = SyntheticStep::new(&device, &*workload.network, workload.sizes).unwrap();
        stage.step().unwrap();
        device.synchronize().unwrap();
        emulator.reset();
        stage.step().unwrap();
        let host = emulator.host_counters();
        let figures = [host.launches, host.copies, host.synchronisations, host.bytes_to_host, host.bytes_to_device]
            .map(|n| n.to_string());
        Row { names: vec![model.to_string(), "32³, 32 points".into()], figures: figures.to_vec() }
    };
    MODELS.iter().map(row).collect()
}

/// Columns of kernels/launches.tsv.
pub const LAUNCH_HEADS: [&str; 3] = ["model", "precision", "launches of a training step"];

/// Every network's training step at 64³ with 4,096 points, batch 1: what it would launch, on a device that idles.
pub fn launches() -> Vec<Row> {
    let emulator = cuemu::preload().unwrap();
    emulator.configure(Config { idle: true, ..Config::default() });
    let mut rows = Vec::new();
    for model in names() {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            let sizes = StepSizes { precision, ..StepSizes::new([64; 3], 1, 4096) };
            let workload = Workload::official(model, sizes).unwrap();
            let launches = workload.dry_run(&Device::cuda(0, 8 << 30).unwrap(), 1).unwrap().all_launches();
            rows.push(Row { names: vec![model.into(), precision.to_string()], figures: vec![launches.to_string()] });
        }
    }
    emulator.configure(Config::default());
    rows
}

/// Columns of kernels/first.tsv.
pub const FIRST_HEADS: [&str; 3] = ["step", "kernel", "launches"];

/// The kernels that must be compiled before a first bf16 step of `full` at 256×256×160, and before a first inference with it.
/// What inference launches depends on what it finds, so that it is computed, in a small volume.
pub fn first() -> Vec<Row> {
    let emulator = cuemu::preload().unwrap();
    let mut rows = Vec::new();
    let train = StepSizes { precision: Precision::Bf16, ..StepSizes::new([256, 256, 160], 1, 16_384) };
    let infer = StepSizes { step: StepKind::Infer, ..StepSizes::new([32; 3], 1, 2048) };
    for (name, idle, sizes) in [("train bf16", true, train), ("infer f32", false, infer)] {
        emulator.configure(Config { idle, threads: 2, ..Config::default() });
        let workload = Workload::official("full", sizes).unwrap();
        let device = Device::cuda(0, 16 << 30).unwrap();
        workload.dry_run(&device, 1).unwrap();
        let row = |(kernel, launches): (&'static str, u64)| Row {
            names: vec![name.into(), kernel.into()],
            figures: vec![launches.to_string()],
        };
        rows.extend(device.launches_by_kernel().into_iter().map(row));
    }
    emulator.configure(Config::default());
    rows
}
