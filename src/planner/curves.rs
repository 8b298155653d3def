//! Memory against resolution, and where the curves of two models cross.

use std::ops::RangeInclusive;

use super::workload::Workload;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::Result;

/// What a cube of one side costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurvePoint {
    /// Side of the cube in voxels.
    pub side: usize,
    /// Most bytes of saved and transient activations and workspace.
    pub peak_activations: u64,
    /// Most bytes in all.
    pub peak_bytes: u64,
    /// Bytes that the arena reserves, fragmentation included.
    pub reserved: u64,
    /// Parameters, of which an occupancy network's encoder has more in larger volumes.
    pub parameters: u64,
}

/// A model's memory against the side of its volume.
#[derive(Clone, Debug)]
pub struct MemoryCurve {
    /// The model's name.
    pub name: String,
    /// Rising sides.
    pub points: Vec<CurvePoint>,
}

/// Every side of a sweep is a multiple of this, which all published networks admit from 32 on.
const MULTIPLE: usize = 16;

/// Sides from a power of two to the next; fewer below 128, where [`MULTIPLE`] is wider than an eighth.
const AN_OCTAVE: usize = 8;

/// Sides from `low` to `high`, both rounded to multiples of 16, and between them eighths of the powers of two: 128, 144, … 256,
/// 288, 320, … 512, 576, …, the sides that people use.
pub fn sides(low: usize, high: usize) -> Vec<usize> {
    let [low, high] = [low, high].map(|side| ((side + MULTIPLE / 2) / MULTIPLE).max(1) * MULTIPLE);
    let step = |side: usize| ((1 << side.ilog2()) / AN_OCTAVE).max(MULTIPLE);
    let next = |&side: &usize| Some(side / step(side) * step(side) + step(side));
    let below = std::iter::successors(Some(low), next).take_while(|&side| side < high);
    below.chain([high.max(low)]).collect()
}

/// Sides of a sweep.
const ADMITTED: RangeInclusive<usize> = 16..=4096;

/// Reads the sides of a sweep: a range, `32..1024`, of which [`sides`] makes a list, or a list, `64,96,224`. What is found rises,
/// each side once.
///
/// # Errors
/// The reason, without the flag's name.
pub fn parse_sides(text: &str) -> Result<Vec<usize>, String> {
    let side = |text: &str| text.trim().parse().ok().filter(|side| ADMITTED.contains(side));
    let range = text.split_once("..").and_then(|(low, high)| Some((side(low)?, side(high)?)));
    let found = match range {
        Some((low, high)) => (low <= high).then(|| sides(low, high)),
        None => text.split(',').map(side).collect(),
    };
    let mut found: Vec<usize> = found
        .ok_or_else(|| format!("'{text}' are no sides from 16 to 4096; write for example 32..1024, or 64,96,224"))?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The curve of a workload over cubes of these sides; those that the network does not admit are left out.
///
/// # Errors
/// Sizes that do not fit 64 bits.
pub fn curve(name: &str, workload: &Workload, target: Target, sides: &[usize]) -> Result<MemoryCurve> {
    let admitted = |&side: &usize| point(&workload.with_volume([side; 3]), target).transpose();
    Ok(MemoryCurve { name: name.into(), points: sides.iter().filter_map(admitted).collect::<Result<_>>()? })
}

/// What one volume costs, whatever its shape; `None` if the network does not admit it. The point's side is the first of its
/// sides.
///
/// # Errors
/// Sizes that do not fit 64 bits.
pub fn point(workload: &Workload, target: Target) -> Result<Option<CurvePoint>> {
    if workload.check().is_err() {
        return Ok(None);
    }
    let cost = workload.dry_run(&Device::plan_for(target, UNLIMITED), 2)?;
    Ok(Some(CurvePoint {
        side: workload.sizes.volume[0],
        peak_activations: cost.peak_activations,
        peak_bytes: cost.peak.by_role.total(),
        reserved: cost.reserved,
        parameters: cost.parameters as u64,
    }))
}

/// Where two curves meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intersection {
    /// Side of the cube.
    pub side: f64,
    /// Bytes there.
    pub bytes: f64,
    /// True if the first curve is the lower one above that side.
    pub first_wins_above: bool,
}

/// Where two rising curves of (side, bytes) cross, found between their points on logarithmic axes, on which they are almost
/// straight.
pub fn crossings(first: &[(f64, f64)], second: &[(f64, f64)]) -> Vec<Intersection> {
    let mut sides: Vec<f64> = first.iter().chain(second).map(|point| point.0).collect();
    sides.sort_unstable_by(f64::total_cmp);
    sides.dedup();
    let known: Vec<(f64, f64, f64)> =
        sides.into_iter().filter_map(|side| Some((side, at(first, side)?, at(second, side)?))).collect();
    let gap = |&(_, a, b): &(f64, f64, f64)| a.ln() - b.ln();
    known
        .windows(2)
        .filter(|pair| gap(&pair[0]) * gap(&pair[1]) < 0.0)
        .map(|pair| {
            let share = gap(&pair[0]) / (gap(&pair[0]) - gap(&pair[1]));
            let side = (pair[0].0.ln() + share * (pair[1].0 / pair[0].0).ln()).exp();
            let bytes = (pair[0].1.ln() + share * (pair[1].1 / pair[0].1).ln()).exp();
            Intersection { side, bytes, first_wins_above: gap(&pair[1]) < 0.0 }
        })
        .collect()
}

/// The curve's value at a side within its range, between its points on logarithmic axes.
fn at(curve: &[(f64, f64)], side: f64) -> Option<f64> {
    let next = curve.iter().position(|point| point.0 >= side)?;
    let (right, bytes) = curve[next];
    if right == side {
        return Some(bytes);
    }
    let (left, before) = *curve.get(next.checked_sub(1)?)?;
    let share = (side / left).ln() / (right / left).ln();
    Some((before.ln() + share * (bytes / before).ln()).exp())
}

impl MemoryCurve {
    /// Side and activation bytes of each point.
    pub fn activations(&self) -> Vec<(f64, f64)> {
        self.points.iter().map(|point| (point.side as f64, point.peak_activations as f64)).collect()
    }

    /// Side and reserved bytes of each point.
    pub fn reserved(&self) -> Vec<(f64, f64)> {
        self.points.iter().map(|point| (point.side as f64, point.reserved as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_spread_evenly_and_end_where_asked() {
        let sides = sides(32, 1024);
        assert_eq!((sides[0], sides[sides.len() - 1]), (32, 1024));
        assert!(sides.windows(2).all(|pair| pair[0] < pair[1]) && sides.iter().all(|side| side % 16 == 0));
        assert!((25..=41).contains(&sides.len()), "{sides:?}");
        let common =
            [64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 288, 320, 352, 384, 416, 448, 480, 512, 640, 768, 1024];
        assert!(common.iter().all(|side| sides.contains(side)), "{sides:?}");
        assert_eq!(super::sides(64, 64), [64]);
        assert_eq!(super::sides(40, 40), [48]);
        assert_eq!(super::sides(300, 500), [304, 320, 352, 384, 416, 448, 480, 496]);
    }

    #[test]
    fn sides_are_written_as_a_range_or_a_list() {
        assert_eq!(parse_sides("32..1024"), Ok(sides(32, 1024)));
        assert_eq!(parse_sides("224, 64,96,64"), Ok(vec![64, 96, 224]));
        assert_eq!(parse_sides("64"), Ok(vec![64]));
        for bad in ["", "64..", "128..64", "8..64", "64,x", "8", "64..5000", "64..128:2"] {
            assert!(parse_sides(bad).unwrap_err().contains("32..1024, or 64,96,224"), "{bad}");
        }
    }

    #[test]
    fn power_laws_cross_where_algebra_says() {
        // 5·s³ and 1000·s: at s² = 200.
        let sides = [4.0, 8.0, 16.0, 32.0];
        let cubic = sides.map(|s: f64| (s, 5.0 * s.powi(3)));
        let straight = [2.0, 10.0, 50.0].map(|s: f64| (s, 1000.0 * s));
        let found = crossings(&straight, &cubic);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!((found[0].side - 200f64.sqrt()).abs() < 1e-9 && found[0].first_wins_above, "{found:?}");
        assert!((found[0].bytes - 1000.0 * 200f64.sqrt()).abs() < 1e-6);
        assert!(crossings(&cubic, &cubic).is_empty() && crossings(&cubic, &[]).is_empty());
    }
}
