//! The largest sizes whose planned bytes fit, and the epochs that a time budget holds after a few real steps.

use super::forecast::{self, RunForecast, fits, settled, some_cases};
use super::rules::{Draft, Reasons, sides, smaller};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::format_bytes;
use crate::models::{Architecture, NetworkConfig, RecomputeChoice};
use crate::planner::median;
use crate::task::PreparedCase;
use crate::train::config::RunConfig;
use crate::train::setup::Setup;
use crate::train::trainer::Trainer;

/// What a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Seconds of training.
    pub seconds: f64,
    /// The caller has said how many epochs; no step is rehearsed.
    pub epochs: Option<u64>,
}

/// A configuration that fits.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The run.
    pub config: RunConfig,
    /// Why it is as it is.
    pub reasons: Reasons,
    /// Its bytes.
    pub forecast: RunForecast,
    /// Seconds of a rehearsed step.
    pub step_seconds: Option<f64>,
}

/// Real steps of a rehearsal; the first touches every page and is not counted.
const REHEARSED: u64 = 4;

/// Part of the time budget that steps may take: the rest is for reading, saving and the validation at the end.
const FOR_STEPS: f64 = 0.85;

/// Most epochs that a plan asks for.
const MOST_EPOCHS: u64 = 1000;

/// Fewer steps than this teach little: an occupancy network then takes fewer points a step.
const FEW_STEPS: f64 = 400.0;

/// The fewest points that time takes away to.
const LEAST_POINTS: usize = 512;

/// What is tried, the largest first.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    points: usize,
    patch: Option<[usize; 3]>,
}

/// Settles the sizes of `draft` on `device`, whose budget counts. `is_given` says which keys the caller has set: they stay.
///
/// # Errors
/// [`Error::Usage`] if not even the smallest sizes fit; cases that cannot be read.
pub fn fit(
    draft: Draft,
    dataset: &Dataset,
    device: &Device,
    budget: Budget,
    is_given: impl Fn(&str) -> bool,
) -> Result<Fitted> {
    let Draft { mut config, mut reasons, largest, .. } = draft;
    let (target, bytes) = (device.target(), device.budget());
    let mut setup = Setup::of(&config, dataset, false)?;
    let mut cases = some_cases(&setup, dataset)?;
    let mut sizes = Sizes { batch: config.batch_size, points: config.training_samples, patch: setup.settings.patch };
    let choice = if is_given("recompute") { config.recompute() } else { RecomputeChoice::Auto };
    let mut settings = loop {
        let settings = settled(&setup, &cases, choice, target, bytes)?;
        if fits(&setup, &settings, &cases, target, bytes)? {
            break settings;
        }
        let Some(next) = next_smaller(sizes, &setup, largest, &is_given) else {
            return Err(Error::Usage(format!(
                "{} does not fit {} at batch {}{}, whatever is recomputed; raise --memory-budget or choose a smaller network",
                setup.network.title(),
                format_bytes(bytes),
                sizes.batch,
                sizes.patch.map_or(String::new(), |patch| format!(" and patches of {}", sides(patch)))
            )));
        };
        let cut_anew = next.patch.is_some() && sizes.patch.is_none();
        sizes = next;
        config.batch_size = sizes.batch;
        config.training_samples = sizes.points;
        config.patch = sizes.patch.map_or(Vec::new(), |patch| patch.to_vec());
        setup = Setup::of(&config, dataset, false)?;
        if cut_anew {
            cases = some_cases(&setup, dataset)?;
        }
    };
    config.recompute = settings.recompute.to_string();
    reasons.insert("recompute", format!("the fastest schedule whose planned bytes fit {}", format_bytes(bytes)));
    let mut step_seconds = None;
    match budget.epochs {
        Some(epochs) => config.epochs = epochs,
        None => {
            let mut seconds = rehearsed(&setup, &settings, &cases, device)?;
            let free = matches!(setup.network, NetworkConfig::OssNet(_)) && !is_given("training_samples");
            while free && budget.seconds * FOR_STEPS / seconds < FEW_STEPS && settings.points / 2 >= LEAST_POINTS {
                settings.points /= 2;
                config.training_samples = settings.points;
                reasons.insert("training_samples", format!("halved until the time budget holds {FEW_STEPS} steps"));
                setup.settings.points = settings.points;
                seconds = rehearsed(&setup, &settings, &cases, device)?;
            }
            let an_epoch = seconds * steps_per_epoch(&config, dataset) as f64;
            let epochs = (budget.seconds * FOR_STEPS / an_epoch).floor();
            config.epochs = (epochs as u64).clamp(1, MOST_EPOCHS);
            reasons.insert(
                "epochs",
                format!(
                    "{seconds:.3} s a step measured, {} steps an epoch; {:.0} % of {} are for steps",
                    steps_per_epoch(&config, dataset),
                    100.0 * FOR_STEPS,
                    duration(budget.seconds)
                ),
            );
            step_seconds = Some(seconds);
        }
    }
    settings.epochs = config.epochs;
    setup.settings = settings.clone();
    let forecast = forecast::forecast(&setup, settings, &cases, dataset, target, bytes)?;
    Ok(Fitted { config, reasons, forecast, step_seconds })
}

fn steps_per_epoch(config: &RunConfig, dataset: &Dataset) -> u64 {
    let cases = dataset.training.len();
    ((cases / (config.batch_size.clamp(1, cases.max(1)) * config.accumulate.max(1))) as u64).max(1)
}

/// The next smaller sizes. A U-Net keeps its volume or patch and loses a case first, as that changes least of what it learns;
/// then volumes are cut and patches shrink. An occupancy network loses cases, then points.
fn next_smaller(sizes: Sizes, setup: &Setup, largest: [usize; 3], is_given: &impl Fn(&str) -> bool) -> Option<Sizes> {
    if sizes.batch > 1 && !is_given("batch_size") {
        return Some(Sizes { batch: sizes.batch / 2, ..sizes });
    }
    match &setup.network {
        NetworkConfig::OssNet(_) => {
            let fewer = sizes.points / 2;
            (fewer >= LEAST_POINTS && !is_given("training_samples")).then_some(Sizes { points: fewer, ..sizes })
        }
        NetworkConfig::UNet(unet) if unet.dimensions == 3 && !is_given("patch") => {
            let patch = smaller(setup.shape, largest, setup.network.multiples())?;
            Some(Sizes { patch: Some(patch), ..sizes })
        }
        NetworkConfig::UNet(_) => None,
    }
}

/// Seconds of a step on `device`: the median of a few real ones.
fn rehearsed(
    setup: &Setup,
    settings: &crate::train::settings::TrainSettings,
    cases: &[PreparedCase],
    device: &Device,
) -> Result<f64> {
    let mut trainer = Trainer::new(device, &setup.network, settings.clone())?;
    trainer.dry_run(&cases, REHEARSED)?;
    let seconds: Vec<f64> = trainer.costs().step_seconds.iter().map(|&seconds| f64::from(seconds)).collect();
    Ok(median(&seconds).max(1e-6))
}

/// `10 min`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
