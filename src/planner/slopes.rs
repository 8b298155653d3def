//! How memory grows: bytes a coordinate and bytes a voxel, fitted to plans.

use super::timeline::{peak_of_part, segments};
use super::workload::Workload;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::Result;

/// A straight line through points, by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Rise for each unit.
    pub slope: f64,
    /// Value at 0.
    pub offset: f64,
    /// Largest distance of a point from the line, as a share of the point's value.
    pub error: f64,
}

impl Line {
    /// The line through two points or more.
    pub fn through(points: &[(f64, f64)]) -> Self {
        let count = points.len().max(1) as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let common: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let slope = if spread > 0.0 { common / spread } else { 0.0 };
        let offset = y - slope * x;
        let error = points.iter().map(|point| (offset + slope * point.0 - point.1).abs() / point.1.abs().max(1.0));
        Self { slope, offset, error: error.fold(0.0, f64::max) }
    }
}

/// How a part of the network grows.
#[derive(Clone, Debug)]
pub struct Slope {
    /// `encoder`, `decoder`, or `model` for a whole U-Net.
    pub part: &'static str,
    /// `point` or `voxel`.
    pub unit: &'static str,
    /// Bytes of saved and transient activations and workspace at the part's peak, against points or voxels.
    pub line: Line,
}

/// Sides of the cubes that bytes a voxel are fitted to: large ones, where no fixed cost is the peak.
const SIDES: [usize; 4] = [256, 320, 384, 512];

/// Points that bytes a coordinate are fitted to.
const POINTS: [usize; 4] = [4096, 8192, 16384, 32768];

impl Slope {
    /// `22.2 bytes` a voxel, `31.9 KiB` a point.
    pub fn rise(&self) -> String {
        match self.unit {
            "point" => format!("{:.1} KiB", self.line.slope / 1024.0),
            _ => format!("{:.1} bytes", self.line.slope),
        }
    }
}

/// Fits the slopes of a workload's step.
///
/// Both are those of one volume, whatever the batch. Bytes a voxel are those of the full-size volume. While voxels vary there
/// is one point, and while points vary the volume is the workload's own.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn slopes(workload: &Workload, target: Target) -> Result<Vec<Slope>> {
    let peak = |workload: &Workload, part: &str| -> Result<f64> {
        let profile = workload.dry_run(&Device::plan_for(target, UNLIMITED), 2)?;
        Ok(peak_of_part(&segments(&profile.events), part).unwrap_or(0) as f64)
    };
    let workload = workload.with_batch(1);
    let mut slopes = Vec::new();
    let part = if workload.has_points() { "encoder" } else { "model" };
    let voxels = SIDES.map(|side| {
        let small = workload.with_volume([side; 3]).with_points(1);
        peak(&small, part).map(|bytes| (small.voxels() as f64, bytes))
    });
    let voxels = voxels.into_iter().collect::<Result<Vec<_>>>()?;
    slopes.push(Slope { part, unit: "voxel", line: Line::through(&voxels) });
    if workload.has_points() {
        let points =
            POINTS.map(|points| peak(&workload.with_points(points), "decoder").map(|bytes| (points as f64, bytes)));
        let points = points.into_iter().collect::<Result<Vec<_>>>()?;
        slopes.push(Slope { part: "decoder", unit: "point", line: Line::through(&points) });
    }
    Ok(slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_its_error_told() {
        let line = Line::through(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]);
        assert!((line.slope - 2.0).abs() < 1e-12 && (line.offset - 3.0).abs() < 1e-12 && line.error < 1e-12);
        assert!(Line::through(&[(0.0, 1.0), (1.0, 1.0), (2.0, 2.0)]).error > 0.1);
        assert_eq!(Line::through(&[(3.0, 4.0)]).slope, 0.0);
    }
}
