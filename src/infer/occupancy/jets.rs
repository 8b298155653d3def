//! The network's logit between voxels with its first and second derivatives by position.
//!
//! Patches are trilinear between whole coordinates: with `f` the fractions within a cell,
//! `patch(p) = Σ_δ Π_a (δ_a ? f_a : 1 − f_a)·patch(⌊p⌋ + δ)` over the cell's eight corners. The weights are polynomials of the
//! position, whose derivatives make the patch's jet. (Where mid-range patches are pooled by their maximum, as under
//! `reference`, what is interpolated is the pooled patch.)

use super::Occupancy;
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::models::ossnet::jets::{COMPONENTS, Jets, SECOND};
use crate::ops;
use crate::tensor::Tensor;

/// Points that are evaluated at once: a patch's jet takes 80 patches' memory, its corners' included.
const AT_ONCE: usize = 128;

/// A logit, its gradient (x, y, z) and its Hessian (xx, xy, xz, yy, yz, zz).
pub type Jet = [f64; COMPONENTS];

impl Occupancy<'_> {
    /// Jets of the logit at `points`, in voxels of the volume; derivatives are by those.
    ///
    /// # Errors
    /// A network of several outputs, answers that are not finite, or no memory.
    pub fn jets_at(&self, points: &[[f64; 3]]) -> Result<Vec<Jet>> {
        if self.config().classes != 1 {
            let problem = format!("a surface of {} classes has no single logit", self.config().classes);
            return Err(Error::Usage(format!("{problem}; refine meshes of networks with one output only")));
        }
        let mut jets = Vec::with_capacity(points.len());
        for points in points.chunks(AT_ONCE) {
            let patches = if self.config().patches { Some(self.patch_jets(points)?) } else { None };
            let found = self.network.decode_jets(
                &self.tape,
                self.parameters,
                &self.encoding,
                self.coordinate_jets(points),
                patches.as_ref(),
            )?;
            jets.extend((0..points.len()).map(|point| found.at(point, 0)));
            if jets[jets.len() - points.len()..].iter().flatten().any(|value| !value.is_finite()) {
                return Err(Error::NoAnswer { case: None });
            }
        }
        Ok(jets)
    }

    /// The coordinates as the decoder knows them: see [`Occupancy::logits_at`].
    fn coordinate_jets(&self, points: &[[f64; 3]]) -> Jets {
        let (own, shape) = (self.config().volume_shape, self.shape());
        let scale = [0, 1, 2].map(|k| own[k] as f64 / shape[k] as f64);
        let mut jets = Jets::zeros(points.len(), 3);
        for (values, point) in jets.component_mut(0).chunks_exact_mut(3).zip(points) {
            (0..3).for_each(|k| values[k] = (scale[k] * point[k] + 0.5 * scale[k] - 0.5) as f32);
        }
        for (axis, scale) in scale.into_iter().enumerate() {
            jets.component_mut(1 + axis).chunks_exact_mut(3).for_each(|slopes| slopes[axis] = scale as f32);
        }
        jets
    }

    fn patch_jets(&self, points: &[[f64; 3]]) -> Result<Jets> {
        let corner = |delta: usize, axis: usize| (delta >> (2 - axis) & 1) as f64;
        let corners: Vec<f32> = points
            .iter()
            .flat_map(|point| {
                (0..8).flat_map(move |delta| (0..3).map(move |k| (point[k].floor() + corner(delta, k)) as f32))
            })
            .collect();
        let coordinates = Tensor::from_slice(self.device(), &[8 * points.len(), 3], Role::Transient, &corners)?;
        let coordinates = self.tape.constant(coordinates);
        let options = self.config().patch_options(false);
        let patches = ops::patch_sample(&self.tape, &self.volume, &coordinates, options)?;
        let features = patches.shape()[1] * patches.shape()[2];
        let patches = patches.tensor().to_vec()?;
        let mut jets = Jets::zeros(points.len(), features);
        for (index, (point, corners)) in points.iter().zip(patches.chunks_exact(8 * features)).enumerate() {
            for (delta, patch) in corners.chunks_exact(features).enumerate() {
                for (k, weight) in weights(point, delta).into_iter().enumerate().filter(|(_, weight)| *weight != 0.0) {
                    let row = &mut jets.component_mut(k)[index * features..][..features];
                    row.iter_mut().zip(patch).for_each(|(sum, value)| *sum += weight as f32 * value);
                }
            }
        }
        Ok(jets)
    }
}

/// The jet of a corner's weight.
fn weights(point: &[f64; 3], delta: usize) -> Jet {
    let side = [0, 1, 2].map(|axis| {
        let fraction = point[axis] - point[axis].floor();
        if delta >> (2 - axis) & 1 == 1 { (fraction, 1.0) } else { (1.0 - fraction, -1.0) }
    });
    let product =
        |slopes: [bool; 3]| (0..3).map(|axis| if slopes[axis] { side[axis].1 } else { side[axis].0 }).product();
    let mut jet = [0.0; COMPONENTS];
    jet[0] = product([false; 3]);
    for axis in 0..3 {
        jet[1 + axis] = product([0, 1, 2].map(|other| other == axis));
    }
    for (k, (a, b)) in SECOND.into_iter().enumerate().filter(|(_, (a, b))| a != b) {
        jet[4 + k] = product([0, 1, 2].map(|other| other == a || other == b));
    }
    jet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::models::{OssNet, OssNetConfig};
    use crate::nn::Parameters;
    use crate::rng::Rng;

    const SIDE: usize = 16;

    /// Runs `check` on a small network of each kind with random weights that has seen noise.
    fn for_each_kind(check: impl Fn(&str, &Occupancy<'_>)) {
        let device = Device::cpu(2, 1 << 30).unwrap();
        for (name, reference) in [("full", false), ("B", false), ("D2", false), ("vanilla_o_net", false), ("A", true)] {
            let mut config = OssNetConfig::sample(name, 2, [SIDE; 3]).unwrap();
            (config.width, config.blocks, config.reference) = (12, 3, reference);
            let (mut parameters, mut rng) = (Parameters::new(&device), Rng::new(5));
            let network = OssNet::new(config, &mut parameters, &mut rng).unwrap();
            // Denominators as they begin: |x| has next to no weight there, and a kink would have no second derivative.
            for parameter in parameters.iter_mut().filter(|one| !one.name().ends_with("weight_denominator")) {
                let values: Vec<f32> =
                    parameter.value().to_vec().unwrap().iter().map(|v| v * 1.1 + 0.05 * rng.normal()).collect();
                parameter.value_and_gradient().0.write(&values).unwrap();
            }
            for (_, buffer, _) in parameters.buffers_mut().filter(|(name, ..)| name.ends_with("running")) {
                let values: Vec<f32> = buffer.to_vec().unwrap().iter().map(|v| v + 0.3 * rng.uniform()).collect();
                buffer.write(&values).unwrap();
            }
            let voxels: Vec<f32> = (0..2 * SIDE.pow(3)).map(|_| rng.normal()).collect();
            let volume = Tensor::from_slice(&device, &[1, SIDE, SIDE, SIDE, 2], Role::Data, &voxels).unwrap();
            check(name, &Occupancy::new(&network, &parameters, volume, 64).unwrap());
        }
    }

    fn points(count: usize) -> Vec<[f64; 3]> {
        let mut rng = Rng::new(9);
        // Some beside the volume, none within 0.1 of a cell's side.
        let mut place = || rng.below(SIDE as u64 + 4) as f64 - 2.0 + f64::from(rng.uniform_in(0.1, 0.9));
        (0..count).map(|_| [place(), place(), place()]).collect()
    }

    /// Values are those of the plain decoder, at voxels and between them.
    #[test]
    fn values() {
        for_each_kind(|name, occupancy| {
            let whole = points(20).into_iter().map(|point| point.map(f64::floor));
            let points: Vec<[f64; 3]> = points(20).into_iter().chain(whole).collect();
            let flat: Vec<f32> = points.iter().flat_map(|point| point.map(|x| x as f32)).collect();
            let coordinates = Tensor::from_slice(occupancy.device(), &[points.len(), 3], Role::Data, &flat).unwrap();
            let logits = occupancy.logits_at(&occupancy.tape.constant(coordinates)).unwrap().tensor().to_vec().unwrap();
            let scale = logits.iter().fold(0.0f32, |max, v| max.max(v.abs()));
            for (jet, logit) in occupancy.jets_at(&points).unwrap().iter().zip(&logits) {
                // Another order of sums in f32, through some ten layers.
                assert!((jet[0] as f32 - logit).abs() < 1e-5 * scale, "{name}: {} and {logit}", jet[0]);
            }
        });
    }

    /// Gradients are central differences of values, Hessians those of gradients. The step leaves f32 values 1e-7/h of noise and
    /// the differences h² of truncation: percents of the largest either way.
    #[test]
    fn derivatives() {
        for_each_kind(|name, occupancy| {
            // Fourier features turn some forty radians a voxel: truncation is (40·h)²/6. Without patches the logit changes
            // over many voxels: its Hessian is small, and the noise of its slopes, divided by h, is not.
            let h = match name {
                "D2" => 0.002,
                "vanilla_o_net" => 0.1,
                _ => 0.01,
            };
            let points = points(12);
            let jets = occupancy.jets_at(&points).unwrap();
            let largest = |range: std::ops::Range<usize>| {
                jets.iter().flat_map(|jet| jet[range.clone()].iter().map(|v| v.abs())).fold(0.0, f64::max)
            };
            let (steepest, most_bent) = (largest(1..4), largest(4..10));
            assert!(steepest > 0.0 && most_bent > 0.0);
            for axis in 0..3 {
                let moved = |shift: f64| {
                    let moved: Vec<[f64; 3]> = points
                        .iter()
                        .map(|point| {
                            let mut point = *point;
                            point[axis] += shift;
                            point
                        })
                        .collect();
                    occupancy.jets_at(&moved).unwrap()
                };
                for (jet, (after, before)) in jets.iter().zip(moved(h).iter().zip(&moved(-h))) {
                    let difference = |k: usize| (after[k] - before[k]) / (2.0 * h);
                    assert!((difference(0) - jet[1 + axis]).abs() < 0.01 * steepest, "{name}, axis {axis}");
                    for other in 0..3 {
                        let pair = (axis.min(other), axis.max(other));
                        let k = 4 + SECOND.iter().position(|&second| second == pair).unwrap();
                        assert!((difference(1 + other) - jet[k]).abs() < 0.01 * most_bent, "{name}, axes {pair:?}");
                    }
                }
            }
        });
    }
}
