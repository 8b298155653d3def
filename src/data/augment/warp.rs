//! Turning, scaling and bending: one map from each voxel of the new volume to a place in the old one, so that an image is
//! interpolated once however many of the three happen, and its labels follow the same map.
//!
//! Millimetres are kept: a turn of a scan with thick slices is a turn of the patient, not of the array.

use super::super::geometry::Geometry;
use crate::rng::Rng;

/// How a case is turned, scaled and bent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spatial {
    /// Angles about the three axes in radians, applied in their order.
    pub angles: [f32; 3],
    /// Factor by which the content grows.
    pub scale: f32,
    /// The bending.
    pub elastic: Option<Elastic>,
}

impl Spatial {
    /// Nothing moves.
    pub const STILL: Spatial = Spatial { angles: [0.0; 3], scale: 1.0, elastic: None };
}

/// A smooth random displacement: cubic B-splines on a coarse grid of control points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elastic {
    /// Intervals between control points along each axis.
    pub intervals: [usize; 3],
    /// The largest displacement of a control point along each axis, in mm.
    pub millimetres: f32,
    /// State of the generator that draws the displacements.
    pub state: [u64; 3],
}

/// Displacements beyond this share of the control points' distance could fold the grid (Choi and Lee, *Injectivity
/// conditions of 2D and 3D uniform cubic B-spline functions*, 2000: 0.40 in three dimensions).
const INJECTIVE: f32 = 0.4;

/// Places in the old volume, in voxels, for every voxel of the new one.
pub(super) struct Warp {
    shape: [usize; 3],
    centre: [f32; 3],
    /// From a voxel's offset from the centre in the new volume to that in the old.
    matrix: [[f32; 3]; 3],
    field: Option<Field>,
}

impl Warp {
    pub fn new(spatial: &Spatial, shape: [usize; 3], geometry: &Geometry) -> Self {
        let spacing = geometry.spacing().map(|mm| mm as f32);
        // The content turns by R and grows by s, so a new place p comes from R⁻¹ p / s; R⁻¹ is the transpose.
        let turn = rotation(spatial.angles);
        let matrix =
            [0, 1, 2].map(|r| [0, 1, 2].map(|c| turn[c][r] * spacing[c] / (spacing[r] * spatial.scale.max(1e-3))));
        let field = spatial.elastic.map(|elastic| Field::new(&elastic, shape, spacing));
        Self { shape, centre: shape.map(|n| (n as f32 - 1.0) / 2.0), matrix, field }
    }

    /// Calls `visit(start of the row, places of its voxels)` for every row along the last axis.
    fn rows(&self, mut visit: impl FnMut(usize, &[[f32; 3]])) {
        let [a, b, c] = self.shape;
        let mut places = vec![[0.0; 3]; c];
        for i in 0..a {
            for j in 0..b {
                let (x, y) = (i as f32 - self.centre[0], j as f32 - self.centre[1]);
                for (k, place) in places.iter_mut().enumerate() {
                    let z = k as f32 - self.centre[2];
                    *place = [0, 1, 2].map(|r| {
                        let row = self.matrix[r];
                        row[0] * x + row[1] * y + row[2] * z + self.centre[r]
                    });
                }
                if let Some(field) = &self.field {
                    field.add_row(i, j, &mut places);
                }
                visit((i * b + j) * c, &places);
            }
        }
    }

    /// Trilinear interpolation of `voxels` (`shape` × `channels`); 0 outside.
    pub fn linear(&self, voxels: &[f32], channels: usize) -> Vec<f32> {
        let mut out = vec![0.0; voxels.len()];
        let [_, b, c] = self.shape;
        self.rows(|start, places| {
            let row = out[start * channels..].chunks_exact_mut(channels);
            for (out, place) in row.zip(places) {
                if !self.holds(place) {
                    continue;
                }
                let taps = [0, 1, 2].map(|k| {
                    let last = self.shape[k] - 1;
                    let at = place[k].clamp(0.0, last as f32);
                    let low = (at as usize).min(last);
                    (low, (low + 1).min(last), at - low as f32)
                });
                let [(x0, x1, wx), (y0, y1, wy), (z0, z1, wz)] = taps;
                for (x, wx) in [(x0, 1.0 - wx), (x1, wx)] {
                    for (y, wy) in [(y0, 1.0 - wy), (y1, wy)] {
                        for (z, wz) in [(z0, 1.0 - wz), (z1, wz)] {
                            let from = &voxels[((x * b + y) * c + z) * channels..][..channels];
                            let weight = wx * wy * wz;
                            out.iter_mut().zip(from).for_each(|(out, v)| *out += weight * v);
                        }
                    }
                }
            }
        });
        out
    }

    /// The nearest voxel's value; the default outside.
    pub fn nearest<T: Copy + Default>(&self, voxels: &[T]) -> Vec<T> {
        let mut out = vec![T::default(); voxels.len()];
        let [_, b, c] = self.shape;
        self.rows(|start, places| {
            for (out, place) in out[start..].iter_mut().zip(places) {
                if self.holds(place) {
                    let [x, y, z] = [0, 1, 2].map(|k| ((place[k] + 0.5) as usize).min(self.shape[k] - 1));
                    *out = voxels[(x * b + y) * c + z];
                }
            }
        });
        out
    }

    /// True if the place lies in a voxel of the old volume.
    fn holds(&self, place: &[f32; 3]) -> bool {
        (0..3).all(|k| place[k] >= -0.5 && place[k] < self.shape[k] as f32 - 0.5)
    }
}

/// The rotation by `angles` about axis 0, then 1, then 2.
fn rotation(angles: [f32; 3]) -> [[f32; 3]; 3] {
    let about = |axis: usize| {
        let (sin, cos) = angles[axis].sin_cos();
        let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
        let mut m = [[0.0; 3]; 3];
        m[axis][axis] = 1.0;
        (m[u][u], m[u][v], m[v][u], m[v][v]) = (cos, -sin, sin, cos);
        m
    };
    let product = |a: [[f32; 3]; 3], b: [[f32; 3]; 3]| {
        [0, 1, 2].map(|r| [0, 1, 2].map(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum()))
    };
    product(about(2), product(about(1), about(0)))
}

/// Displacements of control points, in voxels.
struct Field {
    /// `intervals + 3` along each axis.
    points: [usize; 3],
    displacements: Vec<[f32; 3]>,
    /// Weights of the four control points around each index of each axis, and the first of them.
    weights: [Vec<(usize, [f32; 4])>; 3],
}

impl Field {
    fn new(elastic: &Elastic, shape: [usize; 3], spacing: [f32; 3]) -> Self {
        let intervals = elastic.intervals.map(|n| n.max(1));
        let points = intervals.map(|n| n + 3);
        let mut rng = Rng::from_state(elastic.state);
        let most = [0, 1, 2].map(|k| {
            let distance = shape[k] as f32 / intervals[k] as f32;
            (elastic.millimetres / spacing[k]).min(INJECTIVE * distance)
        });
        let count = points.iter().product();
        let displacements = (0..count).map(|_| most.map(|most| most * rng.uniform_in(-1.0, 1.0))).collect();
        let weights = [0, 1, 2].map(|k| {
            let distance = (shape[k] as f32 - 1.0).max(1.0) / intervals[k] as f32;
            (0..shape[k])
                .map(|i| {
                    let at = i as f32 / distance;
                    let first = (at as usize).min(intervals[k] - 1);
                    (first, b_spline(at - first as f32))
                })
                .collect()
        });
        Self { points, displacements, weights }
    }

    /// Adds the displacements of row `(i, j)`. The sums over the first two axes are made once for the row.
    fn add_row(&self, i: usize, j: usize, places: &mut [[f32; 3]]) {
        let [_, py, pz] = self.points;
        let ((fx, wx), (fy, wy)) = (&self.weights[0][i], &self.weights[1][j]);
        let mut column = vec![[0.0f32; 3]; pz];
        for (x, wx) in wx.iter().enumerate() {
            for (y, wy) in wy.iter().enumerate() {
                let weight = wx * wy;
                let from = &self.displacements[((fx + x) * py + fy + y) * pz..][..pz];
                for (sum, displacement) in column.iter_mut().zip(from) {
                    (0..3).for_each(|k| sum[k] += weight * displacement[k]);
                }
            }
        }
        for (place, (first, weights)) in places.iter_mut().zip(&self.weights[2]) {
            for (weight, displacement) in weights.iter().zip(&column[*first..]) {
                (0..3).for_each(|k| place[k] += weight * displacement[k]);
            }
        }
    }
}

/// Weights of the four control points around a place at `t` of `0..=1` between the middle two.
fn b_spline(t: f32) -> [f32; 4] {
    let u = 1.0 - t;
    [
        u * u * u / 6.0,
        (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0,
        (3.0 * u * u * u - 6.0 * u * u + 4.0) / 6.0,
        t * t * t / 6.0,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::geometry::Affine;

    fn geometry(spacing: [f64; 3], shape: [usize; 3]) -> Geometry {
        Geometry::from_affine(Affine::from_spacing(spacing), shape)
    }

    #[test]
    fn a_quarter_turn_permutes_voxels() {
        let shape = [5, 5, 3];
        let values: Vec<f32> = (0..75).map(|i| i as f32).collect();
        let spatial = Spatial { angles: [0.0, 0.0, std::f32::consts::FRAC_PI_2], ..Spatial::STILL };
        let warp = Warp::new(&spatial, shape, &geometry([1.0; 3], shape));
        let turned = warp.nearest(&values);
        for i in 0..5 {
            for j in 0..5 {
                // Axis 0 turns into axis 1: what was at (i, j) is now at (4 − j, i).
                assert_eq!(turned[((4 - j) * 5 + i) * 3 + 1], values[(i * 5 + j) * 3 + 1]);
            }
        }
        // Interpolated: sines and cosines are off by one part in 10⁷, values differ by up to 74 between neighbours.
        for (linear, nearest) in warp.linear(&values, 1).iter().zip(&turned) {
            assert!((linear - nearest).abs() < 1e-4, "{linear} {nearest}");
        }
    }

    /// A bar of 20 mm along an axis of 2 mm voxels is one of 20 mm along an axis of 1 mm voxels after a quarter turn.
    #[test]
    fn turns_keep_millimetres() {
        let shape = [21, 41, 1];
        let mut bar = vec![0u8; 21 * 41];
        (5..15).for_each(|i| bar[i * 41 + 20] = 1);
        let spatial = Spatial { angles: [0.0, 0.0, std::f32::consts::FRAC_PI_2], ..Spatial::STILL };
        let turned = Warp::new(&spatial, shape, &geometry([2.0, 1.0, 1.0], shape)).nearest(&bar);
        let rows: Vec<usize> = (0..21).map(|i| turned[i * 41..][..41].iter().filter(|&&v| v == 1).count()).collect();
        assert_eq!(rows.iter().max(), Some(&20), "{rows:?}");
    }

    #[test]
    fn scaling_grows_the_content_about_the_centre() {
        let shape = [1, 1, 9];
        let line = [0u8, 0, 0, 1, 1, 1, 0, 0, 0];
        let spatial = Spatial { scale: 2.0, ..Spatial::STILL };
        let grown = Warp::new(&spatial, shape, &geometry([1.0; 3], shape)).nearest(&line);
        assert_eq!(grown, [0, 1, 1, 1, 1, 1, 1, 0, 0], "half a voxel of the source is one of the result");
        let spatial = Spatial { scale: 0.5, ..Spatial::STILL };
        let shrunk = Warp::new(&spatial, shape, &geometry([1.0; 3], shape)).nearest(&[1u8; 9]);
        assert_eq!(shrunk, [0, 0, 1, 1, 1, 1, 1, 0, 0], "what lies outside is background");
    }

    /// Nowhere does a place run backwards along its axis, whatever displacement is asked for.
    #[test]
    fn bending_never_folds() {
        let shape = [24, 18, 30];
        for seed in 0..5 {
            let elastic = Elastic { intervals: [4, 3, 6], millimetres: 1e6, state: [seed, 1, 0] };
            let spatial = Spatial { elastic: Some(elastic), ..Spatial::STILL };
            let warp = Warp::new(&spatial, shape, &geometry([1.0; 3], shape));
            let mut places = Vec::new();
            warp.rows(|_, row| places.extend_from_slice(row));
            let at = |i: usize, j: usize, k: usize| places[(i * 18 + j) * 30 + k];
            let mut moved = 0.0f32;
            for i in 0..23 {
                for j in 0..17 {
                    for k in 0..29 {
                        let here = at(i, j, k);
                        let [x, y, z] = [at(i + 1, j, k), at(i, j + 1, k), at(i, j, k + 1)];
                        let [u, v, w] = [x, y, z].map(|p| [0, 1, 2].map(|c| p[c] - here[c]));
                        let determinant = u[0] * (v[1] * w[2] - v[2] * w[1]) - u[1] * (v[0] * w[2] - v[2] * w[0])
                            + u[2] * (v[0] * w[1] - v[1] * w[0]);
                        assert!(determinant > 0.0, "folds at {i} {j} {k}");
                        moved = moved.max((here[0] - i as f32).abs());
                    }
                }
            }
            assert!(moved > 0.5, "it does bend: {moved} voxels");
        }
    }

    #[test]
    fn splines_sum_to_one() {
        for step in 0..=10 {
            // Four terms of f32, each below 1.
            assert!((b_spline(step as f32 / 10.0).iter().sum::<f32>() - 1.0).abs() < 5e-7);
        }
    }
}
