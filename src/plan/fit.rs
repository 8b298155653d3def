//! The largest sizes whose planned bytes fit, and the epochs that a time budget holds after a few real steps.

use std::time::Instant;

use super::forecast::{self, RunForecast, fits, settled, some_cases};
use super::rules::{Draft, Reasons, sides, smaller};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::memory::format_bytes;
use crate::models::{Architecture, NetworkConfig, RecomputeChoice};
use crate::planner::median;
use crate::task::PreparedCase;
use crate::train::config::RunConfig;
use crate::train::settings::TrainSettings;
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

/// Real steps of a rehearsal, the fewest and the most; the first touches every page and is not counted.
const REHEARSED: [u64; 2] = [2, 5];

/// Part of the time budget after which a rehearsal takes no more than the fewest.
const FOR_REHEARSAL: f64 = 0.02;

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
            let measure = |points| {
                let settings = TrainSettings { points, ..settings.clone() };
                rehearsed(&setup, &settings, &cases, device, FOR_REHEARSAL * budget.seconds)
            };
            let free = matches!(setup.network, NetworkConfig::OssNet(_)) && !is_given("training_samples");
            let least = if free { LEAST_POINTS } else { settings.points };
            let (points, seconds) = halved_points(settings.points, least, budget.seconds * FOR_STEPS, measure)?;
            if points < settings.points {
                (settings.points, setup.settings.points, config.training_samples) = (points, points, points);
                reasons.insert("training_samples", format!("halved until the time budget holds {FEW_STEPS} steps"));
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

/// The points of a step, halved but to no fewer than `least` until [`FEW_STEPS`] fit into `seconds`, and what such a step takes.
/// There is a fixed part in that and one for each point, so that two rehearsals tell all.
fn halved_points(
    points: usize,
    least: usize,
    seconds: f64,
    rehearse: impl Fn(usize) -> Result<f64>,
) -> Result<(usize, f64)> {
    let whole = rehearse(points)?;
    let suffices = |a_step: f64| seconds / a_step >= FEW_STEPS;
    let halved = std::iter::successors(Some(points), |points| Some(points / 2));
    let halved: Vec<usize> = halved.take_while(|&points| points >= least).collect();
    let fewest = *halved.last().unwrap_or(&points);
    if suffices(whole) || fewest == points {
        return Ok((points, whole));
    }
    let fixed = rehearse(fewest)?.min(whole);
    let of = |some: usize| fixed + (whole - fixed) * (some - fewest) as f64 / (points - fewest) as f64;
    let chosen = halved.into_iter().find(|&some| suffices(of(some))).unwrap_or(fewest);
    Ok((chosen, of(chosen)))
}

/// Seconds of a step on `device`: the median of a few real ones, of fewer after `most` seconds.
fn rehearsed(
    setup: &Setup,
    settings: &TrainSettings,
    cases: &[PreparedCase],
    device: &Device,
    most: f64,
) -> Result<f64> {
    let (mut trainer, begun, [fewest, all]) =
        (Trainer::new(device, &setup.network, settings.clone())?, Instant::now(), REHEARSED);
    let unfinished = || "no plan was made".into();
    for _ in 0..fewest {
        interrupt::check(unfinished)?;
        trainer.dry_run(&cases, 1)?;
    }
    while trainer.optimizer().steps() < all && begun.elapsed().as_secs_f64() < most {
        interrupt::check(unfinished)?;
        trainer.dry_run(&cases, 1)?;
    }
    let seconds: Vec<f64> = trainer.costs().step_seconds.iter().skip(1).map(|&seconds| f64::from(seconds)).collect();
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn points_are_halved_by_two_rehearsals() {
        // Two seconds a step, and one for 4,096 points.
        let asked = RefCell::new(Vec::new());
        let rehearse = |points: usize| {
            asked.borrow_mut().push(points);
            Ok(2.0 + points as f64 / 4096.0)
        };
        let found = |seconds, least| {
            asked.borrow_mut().clear();
            (halved_points(16384, least, seconds, rehearse).unwrap(), asked.borrow().clone())
        };
        // 400 steps of 6 s, of 3 s, of 2.125 s, and too little for any.
        assert_eq!(found(2400.0, LEAST_POINTS), ((16384, 6.0), vec![16384]));
        assert_eq!(found(1201.0, LEAST_POINTS), ((4096, 3.0), vec![16384, 512]));
        assert_eq!(found(850.0, LEAST_POINTS), ((512, 2.125), vec![16384, 512]));
        assert_eq!(found(10.0, LEAST_POINTS), ((512, 2.125), vec![16384, 512]));
        assert_eq!(found(10.0, 10_000), ((16384, 6.0), vec![16384]), "no halves of so many");
        assert_eq!(found(10.0, 16384), ((16384, 6.0), vec![16384]), "given");
    }
}
