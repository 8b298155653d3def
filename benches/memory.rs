//! How many bytes does a training step hold at its peak, against resolution and level of recomputation?
//!
//! Criterion measures bytes here instead of seconds. Steps are planned, not run: a plan equals the run event by event, and
//! takes milliseconds. `cargo bench --features criterion --bench memory` leaves the report in `target/criterion/report/index.html`.

use std::time::Duration;

use criterion::{AxisScale, BenchmarkId, Criterion, PlotConfiguration, SamplingMode, criterion_group, criterion_main};

use ossnet::device::criterion::{PeakBytes, iter};
use ossnet::device::{Device, UNLIMITED};
use ossnet::planner::{Workload, this_cpu};
use ossnet::train::dry_run::StepSizes;

/// Sides of the cubes.
const SIDES: [usize; 6] = [64, 96, 128, 192, 256, 384];

fn resolution(criterion: &mut Criterion<PeakBytes>) {
    let target = this_cpu(2);
    let scale = PlotConfiguration::default().summary_scale(AxisScale::Logarithmic);
    let mut group = criterion.benchmark_group("peak of a training step");
    group.plot_config(scale).sampling_mode(SamplingMode::Flat);
    for name in ["o-net", "oss-net-c", "unet3d"] {
        let model = Workload::official(name, StepSizes::new([256; 3], 1, 1 << 14)).expect("a known name");
        for level in model.levels() {
            for side in SIDES {
                let step = model.with_recompute(level).with_volume([side; 3]);
                let id = BenchmarkId::new(format!("{name} at level {level}"), side);
                group.bench_with_input(id, &step, |bencher, step| {
                    iter(bencher, || {
                        let plan = Device::plan_for(target, UNLIMITED);
                        step.dry_run(&plan, 2).expect("an unlimited budget").peak_activations
                    });
                });
            }
        }
    }
    group.finish();
}

/// A plan does not vary: as few samples as criterion takes.
fn brief() -> Criterion<PeakBytes> {
    let time = Duration::from_millis(50);
    Criterion::default()
        .with_measurement(PeakBytes)
        .sample_size(10)
        .warm_up_time(time)
        .measurement_time(time)
        .nresamples(1000)
}

criterion_group! { name = all; config = brief(); targets = resolution }
criterion_main!(all);
