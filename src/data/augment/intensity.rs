//! Changes of the grey values: gamma, bias field, low resolution.

use super::super::resample::CornerAlignment;
use super::super::volume::Volume;
use crate::rng::Rng;

/// Terms of a polynomial of three variables up to the third degree, without the constant.
const TERMS: usize = 19;

/// Each channel's values, as shares of its range, to the power `gamma`; its mean and standard deviation stay as they were
/// (nnU-Net's rule, so that the normalisation still holds).
pub(super) fn gamma(volume: &mut Volume, gamma: f32) {
    let before = volume.stats();
    let channels = volume.channels;
    for channel in 0..channels {
        let values = volume.voxels.iter().skip(channel).step_by(channels);
        let (low, high) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        let range = high - low;
        if range <= 0.0 || !range.is_finite() {
            continue;
        }
        for value in volume.voxels.iter_mut().skip(channel).step_by(channels) {
            *value = ((*value - low) / range).powf(gamma) * range + low;
        }
    }
    for (channel, (before, after)) in before.iter().zip(volume.stats()).enumerate() {
        let factor = if after.std > 0.0 { before.std / after.std } else { 1.0 };
        for value in volume.voxels.iter_mut().skip(channel).step_by(channels) {
            *value = ((*value as f64 - after.mean) * factor + before.mean) as f32;
        }
    }
}

/// Multiplies each channel, from its lowest value upwards, by the exponential of a random polynomial of the third degree in
/// the place (each axis from −1 to 1) whose coefficients lie within ±`strength`: a coil that hears one side better.
pub(super) fn bias_field(volume: &mut Volume, strength: f32, rng: &mut Rng) {
    let coefficients: [f32; TERMS] = std::array::from_fn(|_| rng.uniform_in(-strength, strength));
    let channels = volume.channels;
    let mut low = vec![f32::INFINITY; channels];
    for voxel in volume.voxels.chunks_exact(channels) {
        low.iter_mut().zip(voxel).for_each(|(low, &v)| *low = low.min(v));
    }
    let [a, b, c] = volume.shape;
    let place = |i: usize, n: usize| if n > 1 { 2.0 * i as f32 / (n as f32 - 1.0) - 1.0 } else { 0.0 };
    let mut voxels = volume.voxels.chunks_exact_mut(channels);
    for i in 0..a {
        for j in 0..b {
            let (x, y) = (place(i, a), place(j, b));
            for (k, voxel) in voxels.by_ref().take(c).enumerate() {
                let field = polynomial(&coefficients, [x, y, place(k, c)]).exp();
                voxel.iter_mut().zip(&low).for_each(|(v, low)| *v = (*v - low) * field + low);
            }
        }
    }
}

fn polynomial(coefficients: &[f32; TERMS], [x, y, z]: [f32; 3]) -> f32 {
    let (xx, yy, zz) = (x * x, y * y, z * z);
    let terms = [
        x,
        y,
        z,
        xx,
        yy,
        zz,
        x * y,
        x * z,
        y * z,
        xx * x,
        yy * y,
        zz * z,
        xx * y,
        xx * z,
        yy * x,
        yy * z,
        zz * x,
        zz * y,
        x * y * z,
    ];
    terms.iter().zip(coefficients).map(|(term, coefficient)| term * coefficient).sum()
}

/// As if scanned with voxels `factor` times as long: shrunk and stretched back.
pub(super) fn low_resolution(volume: &mut Volume, factor: f32) {
    let shape = volume.shape.map(|n| ((n as f32 / factor.max(1.0)).round() as usize).clamp(1, n));
    let there_and_back = volume
        .resample(shape, CornerAlignment::Faces)
        .and_then(|small| small.resample(volume.shape, CornerAlignment::Faces));
    // Only an axis without voxels is refused, and then there is nothing to change.
    if let Ok(changed) = there_and_back {
        volume.voxels = changed.voxels;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Volume {
        Volume::new([6, 5, 4], 2, (0..240).map(|i| (i as f32).sqrt() - 3.0).collect())
    }

    #[test]
    fn gamma_keeps_mean_spread_and_order() {
        let before = ramp();
        let mut after = before.clone();
        gamma(&mut after, 1.5);
        for (a, b) in before.stats().iter().zip(after.stats()) {
            // Values below 13, rounded to f32: 1e-6 each, less in the mean.
            assert!((a.mean - b.mean).abs() < 1e-6 && (a.std - b.std).abs() < 1e-6);
        }
        assert!(after.voxels.windows(3).all(|w| w[2] > w[0]), "each channel still rises");
        assert_ne!(before.voxels, after.voxels);
        let mut flat = Volume::new([2, 2, 2], 1, vec![3.0; 8]);
        gamma(&mut flat, 2.0);
        assert_eq!(flat.voxels, [3.0; 8]);
    }

    #[test]
    fn a_bias_field_is_smooth_positive_and_leaves_the_lowest_value() {
        let mut volume = Volume::new([9, 9, 9], 1, vec![1.0; 729]);
        volume.voxels[0] = -1.0;
        bias_field(&mut volume, 0.3, &mut Rng::new(4));
        assert_eq!(volume.voxels[0], -1.0);
        let field: Vec<f32> = volume.voxels[1..].iter().map(|v| (v + 1.0) / 2.0).collect();
        assert!(field.iter().all(|f| *f > 0.0));
        // 19 terms of at most 0.3, whose slopes along an axis are at most 3 a unit, a quarter of which is a voxel.
        let steepest = field.windows(2).enumerate().filter(|(i, _)| (i + 2) % 9 != 0);
        assert!(steepest.map(|(_, w)| (w[1] / w[0]).ln().abs()).fold(0.0, f32::max) < 19.0 * 0.3 * 3.0 / 4.0);
        assert!(field.iter().any(|f| (f - 1.0).abs() > 0.05));
    }

    #[test]
    fn low_resolution_loses_what_is_finer_than_its_voxels() {
        let checks: Vec<f32> = (0..512).map(|i| ((i / 64 + i / 8 % 8 + i % 8) % 2) as f32).collect();
        let mut volume = Volume::new([8; 3], 1, checks);
        low_resolution(&mut volume, 2.0);
        assert!(volume.voxels.iter().all(|v| *v == 0.5), "each of the larger voxels is half and half");
        let before = ramp();
        let mut same = before.clone();
        low_resolution(&mut same, 1.0);
        assert_eq!(same.voxels, before.voxels);
    }
}
