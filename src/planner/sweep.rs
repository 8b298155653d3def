//! The curves of several models at one level of recomputation, with what was recorded of their peers, and every crossing.

use super::curves::{Intersection, MemoryCurve, crossings, curve};
use super::pytorch_baseline::{self, Recorded};
use super::workload::Workload;
use crate::device::Target;
use crate::error::Result;
use crate::models::Recompute;
use crate::train::dry_run::StepKind;

/// Curves and crossings.
pub struct Sweep {
    /// The level of recomputation; U-Nets have the first three, and level 3 is their level 2.
    pub recompute: Recompute,
    /// Planned.
    pub curves: Vec<MemoryCurve>,
    /// Recorded, each with the position of the planned curve that it compares with.
    pub recorded: Vec<(usize, Recorded)>,
    /// Where two of them cross.
    pub meetings: Vec<Crossover>,
}

/// Where two curves cross.
pub struct Crossover {
    /// The one that is lower above.
    pub leaner_above: String,
    /// The other.
    pub other: String,
    /// Where.
    pub crossing: Intersection,
}

/// Plans `workloads` over cubes of these sides at one level of recomputation.
///
/// # Errors
/// Sizes that do not fit 64 bits.
pub fn sweep(workloads: &[Workload], recompute: Recompute, target: Target, sides: &[usize]) -> Result<Sweep> {
    let planned =
        |workload: &Workload| curve(&workload.network.title(), &workload.with_recompute(recompute), target, sides);
    let curves = workloads.iter().map(planned).collect::<Result<Vec<_>>>()?;
    let mut recorded: Vec<(usize, Recorded)> = Vec::new();
    for (position, workload) in workloads.iter().enumerate() {
        // The peers' training steps at batch 1 are what was recorded.
        if workload.sizes.step == StepKind::Train && workload.sizes.batch == 1 {
            let beside = pytorch_baseline::beside(&workload.network.slug(), workload.sizes.points);
            recorded.extend(beside.into_iter().map(|curve| (position, curve)));
        }
    }
    let own = curves.iter().enumerate().map(|(i, curve)| (i, curve.name.as_str(), curve.activations()));
    let peers = recorded.iter().map(|(i, curve)| (*i, curve.name, curve.points()));
    let all: Vec<_> = own.chain(peers).collect();
    let mut meetings = Vec::new();
    for (i, (model, name, points)) in all.iter().enumerate() {
        // A model and its own peer are compared by their curves, not by a crossing.
        for (_, other, others) in all[i + 1..].iter().filter(|(other, ..)| other != model) {
            meetings.extend(crossings(points, others).into_iter().map(|crossing| {
                let (leaner, fatter) = if crossing.first_wins_above { (name, other) } else { (other, name) };
                Crossover { leaner_above: leaner.to_string(), other: fatter.to_string(), crossing }
            }));
        }
    }
    Ok(Sweep { recompute, curves, recorded, meetings })
}
