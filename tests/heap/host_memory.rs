//! What cases and batches take of the host's memory is what is planned for them.

use crate::{allocator, alone};
use ossnet::data::embedded;
use std::sync::Arc;

use ossnet::models::{Architecture, NetworkConfig};
use ossnet::planner::{HostOverhead, Workload, this_cpu};
use ossnet::task::{PreparedCase, Task};
use ossnet::train::dry_run::StepSizes;
use ossnet::train::{batch, presets};

/// Two real heads as training holds them, and a batch of both.
#[test]
fn cases_and_batches_take_what_is_planned() {
    let _turn = alone();
    let dataset = embedded::open("heads").unwrap();
    for name in ["oss-net-c", "o-net", "unet3d"] {
        let network = NetworkConfig::sample(name, 1, 1, [64, 80, 64]).unwrap();
        let task = Task::of(&dataset, network.multiples());
        let prepare = |case| task.prepare(dataset.read(case, task.preprocessing.axes).unwrap(), None).unwrap();
        // What is made once for the process, such as threads, is no case's.
        drop(prepare(&dataset.training[0]));
        let before = allocator::live();
        let cases: Vec<PreparedCase> = dataset.training[..2].iter().map(prepare).collect();
        let held = allocator::live() - before;

        let settings = ossnet::train::settings::TrainSettings { batch_size: 2, ..presets::sample(&network, 1, 0) };
        let sizes = StepSizes::new([64, 80, 64], 2, settings.points);
        let aside = HostOverhead::of(&Workload { network: Arc::new(network.clone()), sizes }, this_cpu(1)).unwrap();
        let check = |what: &str, measured: usize, planned: u64| {
            println!("{name}: {what} take {measured} bytes, {planned} are planned");
            // The plan takes three quarters of the voxels to lie near a border; here 0.57 to 0.64 do, in lists that may have
            // room to grow: half a byte of some thirteen a voxel, either way.
            let share = measured as f64 / planned as f64;
            assert!((0.9..=1.1).contains(&share), "{name}: {what} take {measured} bytes, {planned} are planned");
        };
        check("cases", held, aside.cases);

        let live = allocator::forget();
        let drawn = batch::draw(network.supervision(), &settings, &cases.iter().collect::<Vec<_>>(), 0).unwrap();
        check("batches", allocator::most() - live, aside.staging);
        drop(drawn);
    }
}
