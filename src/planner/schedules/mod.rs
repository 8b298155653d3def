//! Recomputation chosen unit by unit: the curve of a step's time against its bytes, and the fastest point below a budget.
//!
//! Each choice of each unit is planned once, all other units keeping everything: what it costs in time, what it frees while
//! other units run, what its own run needs. Of these sums a dynamic program makes candidates (`model.rs`). Each candidate is then
//! planned itself, exactly, so that nothing about bytes is estimated in the answer. The time is that of the planned operations and
//! bytes at assumed rates (`estimate.rs`).
//!
//! The curve does not depend on a budget. A larger budget is therefore never answered with a slower schedule.

mod estimate;
mod model;

use rayon::prelude::*;

use self::model::{Model, Seen};
use super::adjust::Adjustable;
use super::workload::Workload;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::Result;
use crate::models::{Architecture, Recompute, Schedule, UnitChoice};
use crate::tape::Precision;

/// A schedule and what its plan says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// What is recomputed: a level where it is one.
    pub recompute: Recompute,
    /// Bytes that a step reserves.
    pub reserved: u64,
    /// Seconds of a step's ops, estimated.
    pub seconds: f64,
}

/// Schedules of a step, none of which is both slower and larger than another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// The fastest first, each smaller than the one before.
    pub points: Vec<Point>,
    /// The levels, the fastest first, on the curve or beside it.
    pub levels: Vec<Point>,
}

impl Curve {
    /// The fastest that reserves no more than `budget` bytes.
    pub fn within(&self, budget: u64) -> Option<&Point> {
        self.points.iter().find(|point| point.reserved <= budget)
    }

    /// The one that reserves least.
    pub fn leanest(&self) -> Option<&Point> {
        self.points.last()
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
    if keeps.fits(target, budget)? {
        return Ok(keeps);
    }
    let curve = curve()?;
    let point = curve.within(budget).or(curve.leanest());
    Ok(point.map_or(keeps, |point| step.with_recompute(point.recompute)))
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
        let units = self.architecture.units();
        let levels = self.points(self.architecture.levels().to_vec())?;
        if units.is_empty() || units.len() > Schedule::MOST_UNITS {
            return Ok(Curve { points: front(levels.clone()), levels });
        }
        let keep = vec![UnitChoice::Keep; units.len()];
        let change = |(unit, choice)| {
            let mut choices = keep.clone();
            choices[unit] = choice;
            choices
        };
        let changes: Vec<(usize, UnitChoice)> = units
            .iter()
            .enumerate()
            .flat_map(|(n, unit)| unit.choices.iter().skip(1).map(move |&choice| (n, choice)))
            .collect();
        let layers: Vec<&str> = units.iter().map(|unit| unit.layer.as_str()).collect();
        let of = |choices: &[UnitChoice]| Schedule::new(choices).map_or(Recompute::Activations, Recompute::Units);
        let seen = |recompute| self.seen(recompute, &layers);
        let base = seen(of(&keep))?;
        let changed = changes.par_iter().map(|&change_of| seen(of(&change(change_of)))).collect::<Result<Vec<_>>>()?;
        let mut model = Model::new(base, units.len());
        changes.iter().zip(changed).for_each(|(&(unit, choice), seen)| model.add(unit, choice, seen));
        // A level is called by its name.
        let named = |choices: Vec<UnitChoice>| {
            let is = |level: &&Recompute| level.choices(&units).is_ok_and(|own| own == choices);
            self.architecture.levels().iter().find(is).copied().unwrap_or_else(|| of(&choices))
        };
        let mut found: Vec<Recompute> = model.candidates().into_iter().map(named).collect();
        found.retain(|recompute| !levels.iter().any(|level| level.recompute == *recompute));
        let mut points = self.points(found)?;
        points.extend(&levels);
        Ok(Curve { points: front(points), levels })
    }

    /// What plans say of schedules.
    ///
    /// # Errors
    /// As [`Question::curve`], and schedules of another network.
    pub fn points(&self, schedules: Vec<Recompute>) -> Result<Vec<Point>> {
        let point = |recompute: Recompute| {
            let Seen { reserved, seconds, .. } = self.seen(recompute, &[])?;
            Ok(Point { recompute, reserved, seconds })
        };
        schedules.into_par_iter().map(point).collect()
    }

    fn seen(&self, recompute: Recompute, layers: &[&str]) -> Result<Seen> {
        let device = Device::plan_for(self.target, UNLIMITED);
        device.watch();
        (self.plan)(recompute, &device)?;
        let (requests, work) = device.watched();
        let seconds = estimate::seconds(&work, self.target, self.precision);
        Ok(Seen::new(device.reserved(), seconds, &requests, layers))
    }
}

/// Those of which none is both faster and no larger, the fastest first.
fn front(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a.seconds.total_cmp(&b.seconds).then(a.reserved.cmp(&b.reserved)));
    let mut least = u64::MAX;
    points.retain(|point| {
        let smaller = point.reserved < least;
        least = least.min(point.reserved);
        smaller
    });
    points
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
