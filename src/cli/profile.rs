//! `--profile`: where the time of a run went, as a table and as a file.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::RunArgs;
use super::output::{plural, print};
use super::provenance::stamped;
use crate::device::cuda::devices;
use crate::device::{Backend, Device, MOST_PASSES, Profile, ProfileRow};
use crate::error::Result;
use crate::files::write_atomic;
use crate::memory::Phase;
use crate::order;
use crate::planner::gpus::SPEEDS;
use crate::planner::peaks::{self, Peaks};
use crate::planner::roofline::COMPOSITES;
use crate::report::TextTable;

/// Rows of each table; the rest are summed.
const ROWS: usize = 14;

/// The flag.
#[derive(Args, Clone, Debug)]
pub struct ProfileArgs {
    /// Take the time of each op and layer: print a table at the end, and write FILE for a timeline viewer (ui.perfetto.dev,
    /// chrome://tracing), with the table in it as JSON
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) profile: Option<PathBuf>,
}

/// What a profile is compared with.
struct Machine {
    name: String,
    peaks: Option<Peaks>,
}

impl ProfileArgs {
    /// Starts a profile if one is asked for.
    pub(super) fn start(&self, device: &Device) {
        if self.profile.is_some() {
            device.start_profile();
        }
    }

    /// Ends the profile of [`ProfileArgs::start`] and tells it as [`ProfileArgs::tell`] does.
    ///
    /// # Errors
    /// As there, and what the driver says.
    pub(super) fn finish(&self, device: &Device, run: &RunArgs) -> Result<()> {
        match self.profile {
            Some(_) => self.tell(&device.take_profile()?, device, run),
            None => Ok(()),
        }
    }

    /// Writes the file of a profile and, unless results are JSON, prints its tables. A CPU's ceilings are measured for it: half a
    /// second.
    ///
    /// # Errors
    /// A full disk, memory that the system refuses.
    pub(super) fn tell(&self, profile: &Profile, device: &Device, run: &RunArgs) -> Result<()> {
        let Some(path) = &self.profile else { return Ok(()) };
        let machine = Machine::of(device)?;
        write_atomic(path, format!("{}\n", document(profile, &machine)).as_bytes())?;
        match run.json {
            true => Ok(()),
            false => print(format!("{}timeline: {}", text(profile, &machine), path.display())),
        }
    }
}

impl Machine {
    fn of(device: &Device) -> Result<Self> {
        Ok(match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (threads, simd) = (plural(pool.threads(), "thread"), format!("{:?}", pool.simd()).to_lowercase());
                Self { name: format!("CPU, {threads}, {simd}"), peaks: Some(peaks::of_this_cpu(pool.threads())?) }
            }
            Backend::Cuda(cuda) => {
                let name = devices()?.into_iter().nth(cuda.ordinal()).map_or_else(String::new, |info| info.name);
                // By the word of its name that a data sheet's is: "NVIDIA H100 80GB HBM3".
                let known =
                    SPEEDS.iter().find(|speed| name.to_lowercase().split([' ', '-']).any(|word| word == speed.name));
                let peaks = known.map(|speed| Peaks { flops: speed.f32, bandwidth: speed.bandwidth });
                Self { name, peaks }
            }
            Backend::Plan { .. } => Self { name: "plan".into(), peaks: None },
        })
    }
}

/// What a row of a table sums.
#[derive(Clone, Default)]
struct Sum {
    passes: u64,
    seconds: f64,
    flops: f64,
    bytes: f64,
    /// Seconds of the forward, the backward and all other phases.
    by_phase: [f64; 3],
}

impl Sum {
    fn add(&mut self, row: &ProfileRow) {
        self.passes += row.passes;
        self.seconds += row.seconds;
        // Its passes have their own rows; the time that is left to it lies between them.
        if !COMPOSITES.contains(&row.op) {
            self.flops += row.flops;
            self.bytes += row.bytes;
        }
        let place = match row.phase {
            Phase::Forward => 0,
            Phase::Backward => 1,
            Phase::Setup | Phase::Data | Phase::Optimizer | Phase::Evaluate => 2,
        };
        self.by_phase[place] += row.seconds;
    }
}

/// Sums by `name`, those of the most seconds first; the last is what all beyond [`ROWS`] come to.
fn sums(profile: &Profile, name: impl Fn(&ProfileRow) -> String) -> Vec<(String, Sum)> {
    let mut places = HashMap::new();
    let mut sums: Vec<(String, Sum)> = Vec::new();
    for row in &profile.rows {
        let name = name(row);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            sums.push((name, Sum::default()));
            sums.len() - 1
        });
        sums[place].1.add(row);
    }
    order::by_key_descending(&mut sums, |sum| order::of_number(sum.1.seconds));
    if sums.len() > ROWS + 1 {
        let rest = sums.split_off(ROWS);
        let mut all = (format!("{} more", rest.len()), Sum::default());
        for (_, sum) in &rest {
            all.1.passes += sum.passes;
            all.1.seconds += sum.seconds;
            all.1.flops += sum.flops;
            all.1.bytes += sum.bytes;
            all.1.by_phase.iter_mut().zip(sum.by_phase).for_each(|(to, from)| *to += from);
        }
        sums.push(all);
    }
    sums
}

fn text(profile: &Profile, machine: &Machine) -> String {
    let peaks = machine.peaks.map_or_else(String::new, |peaks| {
        format!(", at best {:.0} GFLOP/s and {:.1} GB/s", peaks.flops / 1e9, peaks.bandwidth / 1e9)
    });
    let mut text = format!("\n{:.2} s on {}{peaks}\n\n", profile.seconds, machine.name);
    let percent = |part: f64, of: f64| if of > 0.0 { format!("{:.0}", 100.0 * part / of) } else { String::new() };
    let rate =
        |work: f64, seconds: f64| if work > 0.0 { format!("{:.1}", work / seconds / 1e9) } else { String::new() };
    let share = |work: f64, seconds: f64, peak: Option<f64>| match peak {
        Some(peak) if work > 0.0 => percent(work / seconds, peak),
        _ => String::new(),
    };
    let mut grid = TextTable::new(["op", "passes", "s", "%", "GFLOP/s", "% best", "GB/s", "% best"]);
    for (name, sum) in sums(profile, |row| match row.op {
        "" => format!("no op, {}", row.phase.name()),
        op => format!("{op}, {}", row.phase.name()),
    }) {
        grid.push([
            name,
            sum.passes.to_string(),
            format!("{:.3}", sum.seconds),
            percent(sum.seconds, profile.seconds),
            rate(sum.flops, sum.seconds),
            share(sum.flops, sum.seconds, machine.peaks.map(|peaks| peaks.flops)),
            rate(sum.bytes, sum.seconds),
            share(sum.bytes, sum.seconds, machine.peaks.map(|peaks| peaks.bandwidth)),
        ]);
    }
    text += &grid.render();
    let mut grid = TextTable::new(["layer", "forward s", "backward s", "other s", "%", "GFLOP/s", "GB/s"]);
    for (name, sum) in sums(profile, |row| if row.layer.is_empty() { "no layer".into() } else { row.layer.to_string() })
    {
        let mut cells = vec![name];
        cells.extend(sum.by_phase.map(|seconds| format!("{seconds:.3}")));
        cells.push(percent(sum.seconds, profile.seconds));
        cells.push(rate(sum.flops, sum.seconds));
        cells.push(rate(sum.bytes, sum.seconds));
        grid.push(cells);
    }
    text.push('\n');
    text += &grid.render();
    text + "\nBytes are those that must move at least; a rate above the best is that of caches.\n"
}

/// The profile in the Trace Event Format, its sums beside the events.
fn document(profile: &Profile, machine: &Machine) -> Value {
    let microseconds = |seconds: f64| (seconds * 1e9).round() / 1e3;
    let events = profile.passes.iter().map(|pass| {
        let cost = &pass.cost;
        json!({
            "ph": "X", "pid": 1, "tid": cost.phase.name(), "cat": cost.phase.name(),
            "name": if cost.op.is_empty() { "no op" } else { cost.op },
            "ts": microseconds(pass.start), "dur": microseconds(pass.seconds),
            "args": { "layer": &*cost.layer, "flops": cost.flops, "bytes": cost.bytes },
        })
    });
    let rows = profile.rows.iter().map(|row| {
        json!({
            "op": row.op, "layer": &*row.layer, "phase": row.phase.name(), "passes": row.passes,
            "seconds": row.seconds, "flops": row.flops, "bytes": row.bytes,
        })
    });
    let best =
        machine.peaks.map(|peaks| json!({ "flops_per_second": peaks.flops, "bytes_per_second": peaks.bandwidth }));
    stamped(
        json!({
            "traceEvents": events.collect::<Vec<_>>(),
            "displayTimeUnit": "ms",
            "otherData": { "note": format!("the first {MOST_PASSES} passes one by one; rows sum all") },
            "device": machine.name,
            "best": best,
            "seconds": profile.seconds,
            "rows": rows.collect::<Vec<_>>(),
        }),
        "rows",
    )
}
