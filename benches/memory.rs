//! How many bytes does a training step hold at its peak, against resolution and level of recomputation?
//!
//! Criterion measures bytes here instead of seconds. Steps are planned, not run: a plan equals the run event by event, and
//! takes milliseconds. `cargo bench --bench memory` leaves the report in `target/criterion/report/index.html`.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{
    AxisScale, BenchmarkId, Criterion, PlotConfiguration, SamplingMode, Throughput, criterion_group, criterion_main,
};

use ossnet::device::{Device, UNLIMITED};
use ossnet::planner::{Workload, this_cpu};
use ossnet::train::dry_run::StepSizes;

/// Peak bytes of saved and transient activations and workspace, summed over iterations.
struct PeakBytes;

impl Measurement for PeakBytes {
    type Intermediate = ();
    type Value = u64;

    // A step reports its peak itself (`Bencher::iter_custom`): there is nothing to read before and after it.
    fn start(&self) {}

    fn end(&self, (): ()) -> u64 {
        0
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, bytes: &u64) -> f64 {
        *bytes as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &BinaryUnits
    }
}

/// Bytes in KiB, MiB or GiB.
struct BinaryUnits;

impl BinaryUnits {
    /// The unit for a typical value, and its bytes.
    fn unit(typical: f64) -> (f64, &'static str) {
        let units = [(1024.0, "KiB"), ((1u64 << 20) as f64, "MiB"), ((1u64 << 30) as f64, "GiB")];
        units.into_iter().rev().find(|(bytes, _)| typical >= *bytes).unwrap_or((1.0, "B"))
    }
}

impl ValueFormatter for BinaryUnits {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (bytes, name) = Self::unit(typical);
        values.iter_mut().for_each(|value| *value /= bytes);
        name
    }

    fn scale_throughputs(&self, _typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        // Bytes held for each element that the step works on.
        if let Throughput::Elements(count) = throughput {
            values.iter_mut().for_each(|value| *value /= *count as f64);
        }
        "bytes a voxel"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "B"
    }
}

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
                    bencher.iter_custom(|iterations| {
                        let peak = |_| {
                            let plan = Device::plan_for(target, UNLIMITED);
                            step.dry_run(&plan, 2).expect("an unlimited budget").peak_activations
                        };
                        (0..iterations).map(peak).sum()
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
