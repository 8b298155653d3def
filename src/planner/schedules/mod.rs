//! Recomputation chosen unit by unit: the curve of a step's time against its bytes, and the fastest point below a budget.
//!
//! Around a schedule each other choice of each unit is planned once: what it costs in time, what it frees while other units run,
//! what its own run needs. Of these sums a dynamic program makes candidates (`model.rs`). Each candidate is then planned itself, so
//! that nothing about bytes is estimated in the answer. Since sums do not tell what neighbours do to each other, this is done around
//! three schedules: the one that keeps everything, and then the leanest and the middle one of those found so far. The time is that of
//! the planned operations and bytes at assumed rates (`estimate.rs`).
//!
//! The curve does not depend on a budget. A larger budget is therefore never answered with a slower schedule.

mod estimate;
mod model;

use std::collections::BTreeMap;

use rayon::prelude::*;

use self::model::{Model, Seen};
use super::adjust::Adjustable;
use super::workload::Workload;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::Result;
use crate::models::{Architecture, Recompute, Schedule, Unit, UnitChoice};
use crate::order;
use crate::tape::Precision;

/// A schedule and what its plan says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// What is recomputed: a level where it is one.
    pub recompute: Recompute,
    /// Most bytes that live together: the least that any placement of a step's buffers reserves.
    pub peak: u64,
    /// Seconds of a step's ops, estimated.
    pub seconds: f64,
    /// Seconds of a step as it ran, where it did ([`Curve::measure`]).
    pub measured: Option<f64>,
}

/// Schedules of a step, none of which is both slower and larger than another: a Pareto front.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// The fastest first, each smaller than the one before.
    pub points: Vec<Point>,
    /// The levels, the fastest first, on the curve or beside it.
    pub levels: Vec<Point>,
}

impl Curve {
    /// Its times, estimated and measured, as multiples of those of the fastest schedule.
    pub fn ratios(&self, point: &Point) -> [Option<f64>; 2] {
        let of = |seconds: fn(&Point) -> Option<f64>| {
            let first = self.points.first().and_then(seconds);
            seconds(point).zip(first).map(|(seconds, first)| seconds / first)
        };
        [of(|point| Some(point.seconds)), of(|point| point.measured)]
    }

    /// Times a step of each schedule and level: `seconds` runs one.
    ///
    /// # Errors
    /// What a run says.
    pub fn measure(&mut self, mut seconds: impl FnMut(Recompute) -> Result<f64>) -> Result<()> {
        for point in &mut self.points {
            point.measured = Some(seconds(point.recompute)?);
        }
        for level in &mut self.levels {
            let known = self.points.iter().find(|point| point.recompute == level.recompute);
            level.measured = known.map_or_else(|| seconds(level.recompute).map(Some), |point| Ok(point.measured))?;
        }
        Ok(())
    }

    /// `step` with the fastest schedule that reserves no more than `budget` bytes on `target`, holes included; and what it
    /// reserves. `None` if not even the leanest fits.
    ///
    /// # Errors
    /// Sizes that the network does not admit.
    pub fn within<S: Adjustable>(&self, step: &S, target: Target, budget: u64) -> Result<Option<(S, u64)>> {
        for point in self.points.iter().filter(|point| point.peak <= budget) {
            let step = step.with_recompute(point.recompute);
            // Of a device with granules a plan may fit whose last granule ends above the budget.
            if let Some(reserved) = step.reserved_within(target, budget)?.filter(|reserved| *reserved <= budget) {
                return Ok(Some((step, reserved)));
            }
        }
        Ok(None)
    }
}

/// The step with the fastest schedule that fits `budget` bytes on `target`, or with the leanest if none does. Level 0 keeps
/// everything: where that fits nothing else is asked, `curve` neither.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn fastest<S: Adjustable>(
    step: &S,
    target: Target,
    budget: u64,
    curve: impl FnOnce() -> Result<Curve>,
) -> Result<S> {
    let keeps = step.with_recompute(Recompute::default());
    if keeps.reserved_within(target, budget)?.is_some_and(|reserved| reserved <= budget) {
        return Ok(keeps);
    }
    let curve = curve()?;
    if let Some((step, _)) = curve.within(step, target, budget)? {
        return Ok(step);
    }
    Ok(curve.points.last().map_or(keeps, |leanest| step.with_recompute(leanest.recompute)))
}

/// How a step is planned with a schedule, on a device that is told.
type Plan<'a> = dyn Fn(Recompute, &Device) -> Result<()> + Sync + 'a;

/// A step whose schedules are compared.
pub struct Question<'a> {
    /// The network.
    pub architecture: &'a dyn Architecture,
    /// Where it runs.
    pub target: Target,
    /// In which precision.
    pub precision: Precision,
    /// Plans it.
    pub plan: &'a Plan<'a>,
}

impl Question<'_> {
    /// The curve.
    ///
    /// # Errors
    /// Sizes that the network does not admit.
    pub fn curve(&self) -> Result<Curve> {
        let levels = self.points(self.architecture.levels().to_vec())?;
        let units = self.architecture.units();
        if units.is_empty() || units.len() > Schedule::MOST_UNITS {
            return Ok(Curve { points: front(levels.clone(), |level| (level.seconds, level.peak)), levels });
        }
        let mut search = Search { question: self, units: &units, known: BTreeMap::new() };
        let level = |level: &Recompute| level.choices(&units);
        search.plan(self.architecture.levels().iter().map(level).collect::<Result<_>>()?)?;
        let mut base = vec![UnitChoice::Keep; units.len()];
        for next in [1.0, 0.5, 0.0] {
            search.around(&base)?;
            let found = search.front();
            let at = (found.len().saturating_sub(1) as f64 * next) as usize;
            base = found.get(at).map_or(base, |point| point.0.clone());
        }
        let named = |choices: &[UnitChoice]| {
            let is = |level: &&Recompute| level.choices(&units).is_ok_and(|own| own == choices);
            self.architecture.levels().iter().find(is).copied().unwrap_or_else(|| schedule(choices))
        };
        let point = |(choices, seen): (Vec<UnitChoice>, Seen)| seen.point(named(&choices));
        Ok(Curve { points: search.front().into_iter().map(point).collect(), levels })
    }

    /// What plans say of schedules.
    ///
    /// # Errors
    /// As [`Question::curve`], and schedules of another network.
    pub fn points(&self, schedules: Vec<Recompute>) -> Result<Vec<Point>> {
        let point = |recompute| Ok(self.seen(recompute, &[])?.point(recompute));
        schedules.into_par_iter().map(point).collect()
    }

    fn seen(&self, recompute: Recompute, layers: &[&str]) -> Result<Seen> {
        let device = Device::plan_for(self.target, UNLIMITED);
        device.watch();
        (self.plan)(recompute, &device)?;
        let (requests, work) = device.watched();
        Ok(Seen::new(estimate::seconds(&work, self.target, self.precision), &requests, layers))
    }
}

/// Schedules that were planned.
struct Search<'a> {
    question: &'a Question<'a>,
    units: &'a [Unit],
    known: BTreeMap<Vec<UnitChoice>, Seen>,
}

impl Search<'_> {
    /// Plans those that were not.
    fn plan(&mut self, mut schedules: Vec<Vec<UnitChoice>>) -> Result<()> {
        schedules.retain(|choices| !self.known.contains_key(choices));
        schedules.sort_unstable();
        schedules.dedup();
        let layers: Vec<&str> = self.units.iter().map(|unit| unit.layer.as_str()).collect();
        let seen = |choices: Vec<UnitChoice>| Ok((choices.clone(), self.question.seen(schedule(&choices), &layers)?));
        let seen = schedules.into_par_iter().map(seen).collect::<Result<Vec<_>>>()?;
        self.known.extend(seen);
        Ok(())
    }

    /// Plans the neighbours of a schedule, and what sums of their differences from it promise.
    fn around(&mut self, base: &[UnitChoice]) -> Result<()> {
        let with = |unit: usize, choice| {
            let mut choices = base.to_vec();
            choices[unit] = choice;
            choices
        };
        let all = |(n, unit): (usize, &Unit)| unit.choices.iter().map(move |&choice| (n, choice));
        let changes: Vec<(usize, UnitChoice)> = self.units.iter().enumerate().flat_map(all).collect();
        self.plan(changes.iter().map(|&(unit, choice)| with(unit, choice)).collect())?;
        let Some(seen) = self.known.get(base) else { return Ok(()) };
        let mut model = Model::new(seen, self.units.len());
        for (unit, choice) in changes {
            if let Some(seen) = self.known.get(&with(unit, choice)) {
                model.add(unit, choice, seen);
            }
        }
        let candidates = model.candidates();
        self.plan(candidates)
    }

    /// The best of what was planned.
    fn front(&self) -> Vec<(Vec<UnitChoice>, Seen)> {
        let best = front(self.known.iter().collect(), |(_, seen)| (seen.seconds, seen.peak()));
        best.into_iter().map(|(choices, seen)| (choices.clone(), seen.clone())).collect()
    }
}

fn schedule(choices: &[UnitChoice]) -> Recompute {
    Schedule::new(choices).map_or(Recompute::Activations, Recompute::Units)
}

/// Those than which none is both faster and no larger, by their seconds and bytes; the fastest first.
fn front<T>(mut all: Vec<T>, costs: impl Fn(&T) -> (f64, u64)) -> Vec<T> {
    order::by_key(&mut all, |item| {
        let (seconds, bytes) = costs(item);
        order::of_number(seconds) << 64 | u128::from(bytes)
    });
    let mut least = u64::MAX;
    all.retain(|item| {
        let (_, bytes) = costs(item);
        let smaller = bytes < least;
        least = least.min(bytes);
        smaller
    });
    all
}

impl Workload {
    /// The curve of its training step on `target`.
    ///
    /// # Errors
    /// Sizes that the network does not admit.
    pub fn schedules(&self, target: Target) -> Result<Curve> {
        self.asked(target, |question| question.curve())
    }

    /// What plans of its training step on `target` say of schedules.
    ///
    /// # Errors
    /// As there, and schedules of another network.
    pub fn scheduled(&self, target: Target, schedules: Vec<Recompute>) -> Result<Vec<Point>> {
        self.asked(target, |question| question.points(schedules))
    }

    fn asked<T>(&self, target: Target, ask: impl FnOnce(&Question<'_>) -> Result<T>) -> Result<T> {
        let plan = |recompute, device: &Device| self.with_recompute(recompute).plan(device).map(drop);
        ask(&Question { architecture: &*self.network, target, precision: self.sizes.precision, plan: &plan })
    }
}
