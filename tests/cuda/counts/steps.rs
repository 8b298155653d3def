//! What a training step asks of the driver: launches, copies, waiting.

use cuemu::Config;
use ossnet::device::Device;
use ossnet::planner::Workload;
use ossnet::train::dry_run::{StepSizes, SyntheticStep};

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
        let mut stage = SyntheticStep::new(&device, &workload.network, workload.sizes).unwrap();
        stage.step().unwrap();
        emulator.reset();
        stage.step().unwrap();
        let host = emulator.host_counters();
        let figures = [host.launches, host.copies, host.synchronisations, host.bytes_to_host, host.bytes_to_device]
            .map(|n| n.to_string());
        Row { names: vec![model.to_string(), "32³, 32 points".into()], figures: figures.to_vec() }
    };
    MODELS.iter().map(row).collect()
}
