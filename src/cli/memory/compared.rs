//! A step beside one that `ossnet memory --json` told of before: what grew, by role and layer.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::output::print;
use super::super::provenance::print_json;
use super::{MemoryArgs, refuse};
use crate::error::{Error, Result};
use crate::files;
use crate::memory::{Role, format_bytes};
use crate::order;
use crate::planner::StepCost;
use crate::planner::json::layer_name;
use crate::report::{TextTable, mib, role_name};

/// Layers that the table lists.
const LAYERS: usize = 15;

/// The longest file that is read.
const LONGEST: u64 = 64 << 20;

/// Figures of both, and what they are called.
struct Pair {
    key: String,
    /// In words.
    name: String,
    was: u64,
    is: u64,
}

/// Prints both.
pub(super) fn run(args: &MemoryArgs, path: &Path) -> Result<()> {
    let exports = args.csv.is_some() || args.trace.is_some() || args.pprof.is_some() || args.snapshot.is_some();
    refuse(exports, "--csv, --trace, --pprof and --snapshot", "--compare-to")?;
    #[cfg(feature = "report")]
    refuse(args.page().is_some(), "--html", "--compare-to")?;
    let former = read(path)?;
    let device = args.device()?;
    let steps = if device.is_plan() { 2 } else { args.steps as usize };
    let (workload, change, cost) = args.taken(&device, steps)?;
    let now = StepCost::of(workload, device, cost, change)?;
    let (roles, layers, sums) = (by_role(&former, &now), by_layer(&former, &now), sums(&former, &now));
    if args.run.json {
        let object = |pairs: &[Pair]| -> Map<String, Value> {
            let entry = |pair: &Pair| (pair.key.clone(), json!({ "was": pair.was, "is": pair.is }));
            pairs.iter().map(entry).collect()
        };
        return print_json(
            json!({
                "compared_to": path.display().to_string(),
                "was": setting(&former),
                "is": setting(&crate::planner::json::step(&now)),
                "bytes": object(&sums),
                "by_role": object(&roles),
                "by_layer": object(&layers),
            }),
            "steps",
        );
    }
    let is = crate::planner::json::step(&now);
    let mut text = format!("was: {}\nis:  {}\n\n", words(&setting(&former)), words(&setting(&is)));
    text += &grid("", sums.iter().chain(&roles)).render();
    text += "\nLayers at the peak, those that changed most first\n";
    text += &grid("layer", layers.iter().take(LAYERS)).render();
    let rest = layers.iter().skip(LAYERS).filter(|pair| pair.was != pair.is).count();
    if rest > 0 {
        text += &format!("{rest} more layers changed less (--json has all)\n");
    }
    print(text)
}

/// The answer of `ossnet memory --json` in a file.
fn read(path: &Path) -> Result<Value> {
    let wrong = |why: String| {
        let remedy = "write one with `ossnet memory --json > FILE`";
        Error::Usage(format!("--compare-to {}: {why}; {remedy}", path.display()))
    };
    let text = files::read_text(path, LONGEST)?;
    let found: Value = serde_json::from_str(&text).map_err(|error| wrong(format!("is no JSON ({error})")))?;
    let numbers = |key: &str| found[key].as_object().is_some_and(|all| all.values().all(Value::is_u64));
    if !(found["peak_bytes"].is_u64() && numbers("by_role") && numbers("by_layer")) {
        return Err(wrong("holds no step's costs".into()));
    }
    Ok(found)
}

/// What a step was told.
fn setting(step: &Value) -> Value {
    let keys = ["model", "step", "volume", "batch", "points", "recompute", "precision", "device", "planned_for"];
    keys.iter().filter(|key| !step[**key].is_null()).map(|key| ((*key).to_string(), step[*key].clone())).collect()
}

/// The same in a line.
fn words(setting: &Value) -> String {
    let word = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{} {text}", key.replace('_', " ")),
        other => format!("{} {other}", key.replace('_', " ")),
    };
    setting.as_object().map(|all| all.iter().map(word).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

fn sums(former: &Value, now: &StepCost) -> Vec<Pair> {
    let is = [
        ("peak_bytes", "peak", now.cost.peak.by_role.total()),
        ("peak_activation_bytes", "saved, transient and workspace", now.cost.peak_activations),
        ("reserved_bytes", "reserved", now.cost.reserved),
        ("device_bytes", "device, in all", now.device_bytes()),
    ];
    let pair = |(key, name, was, is): (&str, &str, Option<u64>, u64)| {
        Some(Pair { key: key.to_string(), name: name.to_string(), was: was?, is })
    };
    // Files of earlier versions have a host sum without the program under the same name.
    let host = former["device_bytes"].as_u64().and(former["host_bytes"].as_u64());
    let known = is.into_iter().map(|(key, name, is)| (key, name, former[key].as_u64(), is));
    known.chain([("host_bytes", "host, in all", host, now.host_bytes())]).filter_map(pair).collect()
}

fn by_role(former: &Value, now: &StepCost) -> Vec<Pair> {
    let pair = |role: Role| {
        let was = former["by_role"][role.name()].as_u64().unwrap_or(0);
        let name = format!("{} at the peak", role_name(role.name()));
        Pair { key: role.name().to_string(), name, was, is: now.cost.peak.by_role.get(role) }
    };
    Role::ALL.into_iter().map(pair).filter(|pair| pair.was.max(pair.is) > 0).collect()
}

fn by_layer(former: &Value, now: &StepCost) -> Vec<Pair> {
    let pair = |layer: &str, was, is| Pair { key: layer.to_string(), name: layer.to_string(), was, is };
    let mut pairs: Vec<Pair> = now.by_layer.iter().map(|(layer, bytes)| pair(layer_name(layer), 0, *bytes)).collect();
    for (layer, was) in former["by_layer"].as_object().into_iter().flatten() {
        let was = was.as_u64().unwrap_or(0);
        match pairs.iter_mut().find(|pair| pair.key == *layer) {
            Some(pair) => pair.was = was,
            None => pairs.push(pair(layer, was, 0)),
        }
    }
    order::by_key_descending(&mut pairs, |pair| pair.was.abs_diff(pair.is).into());
    pairs
}

fn grid<'a>(head: &str, pairs: impl Iterator<Item = &'a Pair>) -> TextTable {
    let mut grid = TextTable::new([head, "was, MiB", "is, MiB", "grew by", ""]);
    for Pair { name, was, is, .. } in pairs {
        let sign = if is < was { "-" } else { "" };
        let share = match was {
            0 => "new".into(),
            _ => format!("{:+.1} %", 100.0 * (*is as f64 / *was as f64 - 1.0)),
        };
        grid.push([name.clone(), mib(*was), mib(*is), format!("{sign}{}", format_bytes(was.abs_diff(*is))), share]);
    }
    grid
}
