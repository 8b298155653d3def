//! `ossnet plan`: a configuration for each network, made of the data set and of budgets of bytes and seconds.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use toml::Table;

use super::RunArgs;
use super::device_args::DeviceArgs;
use super::output::{print, result_folder};
use super::progress::Verbosity;
use super::provenance::print_json;
use super::training::open_dataset;
use crate::data::{Dataset, validate};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::write_atomic;
use crate::interrupt;
use crate::models::{Architecture, Family, NetworkConfig};
use crate::plan::{self, Budget, Fingerprint, Fitted, Request};
use crate::train::config::DataSource;

/// Networks that are planned for if none is named.
const MODELS: &str = "oss-net-c,unet3d";

/// What was found of the data set.
const FINGERPRINT: &str = "fingerprint.json";

/// Flags of `ossnet plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// A data set's folder of any layout, or sample:TASK for an embedded one
    #[arg(short, long, visible_alias = "dataset-path", value_name = "DIR", value_parser = super::path_text())]
    data: String,
    /// Networks, separated by commas
    #[arg(short, long, alias = "models", default_value = MODELS, value_delimiter = ',', value_name = "NAMES")]
    model: Vec<String>,
    /// Time of training for each network, for example 30m [default: 10m on the CPU, 1h on CUDA]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time_budget: Option<f64>,
    /// Passes over the training cases, instead of what the time budget holds
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, conflicts_with = "time_budget",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    epochs: Option<u64>,
    /// Seed of the runs, and of the division into training and validation where the data set states none
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    seed: u64,
    /// Folder for NETWORK.toml and fingerprint.json [default: a new folder in runs/]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the plans that --out holds
    #[arg(long, requires = "out")]
    overwrite: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Reads a length of time in seconds.
pub(super) fn parse_time(text: &str) -> std::result::Result<f64, String> {
    let seconds = humantime::parse_duration(text).map(|time| time.as_secs_f64()).ok().filter(|&seconds| seconds >= 1.0);
    seconds
        .ok_or_else(|| format!("'{text}' is no length of time of a second or more; write for example 90s, 30m or 2h"))
}

/// Plans.
///
/// # Errors
/// An unknown network, a data set that cannot be read, sizes that do not fit the budget, a full disk.
pub fn run(args: PlanArgs) -> Result<()> {
    interrupt::listen();
    let verbosity = args.run.verbosity();
    let device = args.device.open(&args.run)?;
    let names = names(&args.model)?;
    let dataset = open_dataset(&DataSource::of(&args.data), args.seed)?;
    dataset.check_headers()?;
    let folder = result_folder(args.out.as_deref(), "plan", FINGERPRINT, args.overwrite)?;
    let fingerprint = fingerprint(&dataset, verbosity)?;
    let seconds = args.time_budget.unwrap_or_else(|| plan::default_seconds(device.target()));
    let mut planned = Vec::new();
    for name in names {
        interrupt::check(|| format!("{} networks are planned", planned.len()))?;
        let request = Request {
            model: name,
            data: &plan::stored_path(&args.data),
            seed: args.seed,
            budget: Budget { seconds, epochs: args.epochs },
            given: Table::new(),
        };
        planned.push((name, planned_run(&fingerprint, &dataset, &device, &request, verbosity)?));
    }
    // Nothing is written before all of it is known.
    interrupt::check(|| "nothing was written".into())?;
    let written = folder.path().join(FINGERPRINT);
    write_atomic(&written, fingerprint.to_json()?.as_bytes())?;
    let (mut text, mut answers) = (String::new(), Vec::new());
    for (name, fitted) in &planned {
        let path = folder.path().join(format!("{name}.toml"));
        write_atomic(&path, fitted.to_toml(&fingerprint)?.as_bytes())?;
        text += &fitted.lines(&fingerprint).join("\n");
        text += &format!("\ntrain with:   ossnet train --config {}\n\n", path.display());
        let reasons: Value =
            fitted.reasons.iter().map(|(key, why)| (key.to_string(), Value::from(why.clone()))).collect();
        answers.push(json!({
            "file": path.display().to_string(),
            "plan": fitted.forecast.json(),
            "step_seconds": fitted.step_seconds,
            "reasons": reasons,
        }));
    }
    match args.run.json {
        true => print_json(Value::Array(answers), "plans"),
        false => print(format!("{text}fingerprint:  {}", written.display())),
    }
}

/// The names of `--model`, each known and there once.
fn names(given: &[String]) -> Result<Vec<&str>> {
    let names: Vec<&str> = given.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    let mut slugs = Vec::new();
    for name in &names {
        let slug = NetworkConfig::official(name, Family::Brats)?.slug();
        if slugs.contains(&slug) {
            return Err(Error::Usage(format!("--model names {name} twice; name each network once")));
        }
        slugs.push(slug);
    }
    match names.is_empty() {
        true => Err(Error::Usage(format!("--model names no network; write for example {MODELS}"))),
        false => Ok(names),
    }
}

/// The fingerprint of a data set, with a progress bar.
///
/// # Errors
/// A case that cannot be read.
pub(super) fn fingerprint(dataset: &Dataset, verbosity: Verbosity) -> Result<Fingerprint> {
    let bar = std::sync::Mutex::new(verbosity.task("looking at the cases", dataset.training.len() as u64));
    let odd = std::sync::Mutex::new(dataset.warnings.clone());
    let found = Fingerprint::of(dataset, |name, mut warnings| {
        if let (Ok(mut bar), Ok(mut odd)) = (bar.lock(), odd.lock()) {
            bar.advance(name);
            odd.append(&mut warnings);
        }
    })?;
    if let Ok(bar) = bar.into_inner() {
        bar.finish("done");
    }
    let odd = odd.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    validate::grouped(odd).iter().for_each(|warning| verbosity.warn(warning));
    Ok(found)
}

/// A plan, and a word of what takes its time.
///
/// # Errors
/// As [`plan::plan`].
pub(super) fn planned_run(
    fingerprint: &Fingerprint,
    dataset: &Dataset,
    device: &Device,
    request: &Request<'_>,
    verbosity: Verbosity,
) -> Result<Fitted> {
    let why = if request.budget.epochs.is_some() {
        "sizes by their planned bytes"
    } else {
        "sizes by their planned bytes, then a few real steps"
    };
    verbosity.say(format!("planning {}: {why}", request.model));
    plan::plan(fingerprint, dataset, device, request)
}
