//! From a fingerprint to a draft of a run's configuration, each choice with its reason. Bytes and seconds come later
//! ([`super::fit`]): here is what follows from the data alone.

use std::collections::BTreeMap;

use super::fingerprint::Fingerprint;
use crate::data::inspect::millimetres;
use crate::data::{Augmentation, SamplingRule};
use crate::error::Result;
use crate::evaluate::statistics::quantile;
use crate::models::{Architecture, Family, NetworkConfig};
use crate::train::config::{Preset, RunConfig};
use crate::train::settings::Augment;

/// Why a key of a configuration has its value. Keys of a section are joined by a dot.
pub type Reasons = BTreeMap<&'static str, String>;

/// A configuration whose sizes are not settled yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What the data say.
    pub config: RunConfig,
    /// Why.
    pub reasons: Reasons,
    /// Voxels along each axis of the largest training case, after resampling.
    pub largest: [usize; 3],
    /// The same of the median case.
    pub median: [usize; 3],
}

/// Spacings that differ by less than this factor are one.
const ONE_SPACING: f64 = 1.1;

/// An axis whose spacing is so many times the others' is a stack of slices.
const SLICES: f64 = 3.0;

/// A 3D U-Net's patch has no more voxels than this, as nnU-Net's usual 128³: larger ones leave too few steps.
const MOST_PATCH: usize = 1 << 21;

/// A class with less than this share of the foreground gets points of its own.
const RARE: f64 = 0.02;

/// Points of an occupancy network: one for so many voxels of the grid, within the limits.
const VOXELS_A_POINT: usize = 32;
const LEAST_POINTS: usize = 1024;
const MOST_POINTS: usize = 1 << 14;

/// The longest shift, in voxels and as a part of a side.
const SHIFT: (usize, usize) = (5, 16);

/// What the cases of `fingerprint` suggest for the network called `model`, trained on the data set in `data`.
///
/// # Errors
/// An unknown model.
pub fn draft(fingerprint: &Fingerprint, model: &str, data: &str, seed: u64) -> Result<Draft> {
    let network = NetworkConfig::official(model, Family::Brats)?;
    let mut config = Preset::Auto.config(model)?;
    let mut reasons = Reasons::new();
    (config.dataset_path, config.seed) = (data.into(), seed);
    let target = spacing(fingerprint, &mut config, &mut reasons);
    clip(fingerprint, &mut config, &mut reasons);
    let shapes = fingerprint.cases.iter().map(|case| match target {
        None => case.shape,
        Some(target) => {
            [0, 1, 2].map(|k| (case.shape[k] as f64 * case.spacing[k] / target[k]).round().max(1.0) as usize)
        }
    });
    let shapes: Vec<[usize; 3]> = shapes.collect();
    let side = |share: f64| {
        [0, 1, 2].map(|k| {
            let mut sides: Vec<f64> = shapes.iter().map(|shape| shape[k] as f64).collect();
            sides.sort_unstable_by(f64::total_cmp);
            quantile(&sides, share).round() as usize
        })
    };
    let (largest, median) = (side(1.0), side(0.5));
    match &network {
        NetworkConfig::OssNet(_) => occupancy(fingerprint, &network, largest, &mut config, &mut reasons),
        NetworkConfig::UNet(unet) if unet.dimensions == 2 => slices(fingerprint, target, &mut config, &mut reasons),
        NetworkConfig::UNet(_) => volumes(&network, largest, &mut config, &mut reasons),
    }
    augmentation(fingerprint, &network, median, &mut config, &mut reasons);
    Ok(Draft { config, reasons, largest, median })
}

/// The spacing that scans are resampled to, if theirs differ.
fn spacing(fingerprint: &Fingerprint, config: &mut RunConfig, reasons: &mut Reasons) -> Option<[f64; 3]> {
    let spacing = &fingerprint.spacing;
    let alike = (0..3).all(|k| spacing.greatest[k] <= ONE_SPACING * spacing.least[k]);
    if alike {
        let said = format!("the scans' own: all have voxels of about {} mm", millimetres(spacing.median));
        reasons.insert("preprocessing.spacing", said);
        return None;
    }
    let mut target = spacing.median;
    let mut said = format!(
        "the median of the training cases, whose voxels are {} to {} mm",
        millimetres(spacing.least),
        millimetres(spacing.greatest)
    );
    let coarse = coarsest(target);
    let others = (0..3).filter(|&k| k != coarse).map(|k| target[k]).fold(0.0, f64::max);
    if target[coarse] >= SLICES * others {
        let mut own: Vec<f64> = fingerprint.cases.iter().map(|case| case.spacing[coarse]).collect();
        own.sort_unstable_by(f64::total_cmp);
        target[coarse] = quantile(&own, 0.1);
        said += &format!("; along axis {coarse}, a stack of thick slices, the tenth percentile, as nnU-Net does");
    }
    let target = target.map(|mm| (mm * 1e4).round() / 1e4);
    config.preprocessing.spacing = target.to_vec();
    reasons.insert("preprocessing.spacing", said);
    Some(target)
}

/// The axis of the largest spacing; of equals the last.
fn coarsest(spacing: [f64; 3]) -> usize {
    (0..3).max_by(|&a, &b| spacing[a].total_cmp(&spacing[b])).unwrap_or(2)
}

fn clip(fingerprint: &Fingerprint, config: &mut RunConfig, reasons: &mut Reasons) {
    let said = match (fingerprint.clip, fingerprint.is_ct()) {
        (Some([low, high]), _) => {
            config.preprocessing.clip = vec![low, high];
            "the window that the data set's layout names; then each scan's z-score".to_string()
        }
        (None, true) => {
            let low = fingerprint.intensities.iter().map(|channel| channel.low).fold(f32::INFINITY, f32::min);
            let high = fingerprint.intensities.iter().map(|channel| channel.high).fold(f32::NEG_INFINITY, f32::max);
            if low < high {
                config.preprocessing.clip = vec![low, high];
            }
            "0.5th and 99.5th percentile of the foreground's Hounsfield units; then each scan's z-score".to_string()
        }
        (None, false) => "values have no unit: nothing is cut, and each scan's z-score is taken".to_string(),
    };
    reasons.insert("preprocessing.clip", said);
}

/// An occupancy network: as many of its encoder's blocks as the grid admits, points by the grid's size.
fn occupancy(
    fingerprint: &Fingerprint,
    network: &NetworkConfig,
    largest: [usize; 3],
    config: &mut RunConfig,
    reasons: &mut Reasons,
) {
    let NetworkConfig::OssNet(published) = network else { return };
    let grid = largest.map(|side| side.next_multiple_of(2));
    let usable = crate::models::config::usable_blocks(grid.map(|side| side / 2), published.encoder_channels.len());
    if usable < published.encoder_channels.len() && !published.is_small() {
        config.network.encoder_channels = published.encoder_channels[..usable].iter().map(|pair| pair.1).collect();
        let said = format!(
            "{usable} of the {} blocks: in volumes of {} voxels another would leave latents of one voxel a side",
            published.encoder_channels.len(),
            sides(grid)
        );
        reasons.insert("network.encoder_channels", said);
    }
    let voxels: usize = grid.iter().product();
    config.training_samples = (voxels / VOXELS_A_POINT).next_multiple_of(256).clamp(LEAST_POINTS, MOST_POINTS);
    reasons.insert(
        "training_samples",
        format!(
            "one for {VOXELS_A_POINT} voxels of {}, within {LEAST_POINTS} and the published {MOST_POINTS}",
            sides(grid)
        ),
    );
    reasons.insert(
        "batch_size",
        "4: running statistics of batch norms must fit all scans; fewer where memory is short".into(),
    );
    if !published.is_small() {
        config.optimizer.rate = 1e-3;
        reasons.insert(
            "optimizer.rate",
            "between the official 3e-4, for runs of days, and the small variants' 3e-3; assumed, not tuned on these data".into(),
        );
    }
    reasons.insert("dice_factor", "0: cross entropy alone, as published".into());
    let foreground: u64 = fingerprint.classes.iter().skip(1).map(|class| class.voxels).sum();
    let rare = fingerprint.classes.iter().skip(1).filter(|class| (class.voxels as f64) < RARE * foreground as f64);
    let rare: Vec<&str> = rare.map(|class| class.name.as_str()).collect();
    match rare.is_empty() {
        true => {
            reasons.insert("sampling", "half of the points near borders: no class is rare".into());
        }
        false => {
            config.sampling = SamplingRule::Class;
            let said =
                format!("half of the points by class: {} have less than {RARE} of the foreground", rare.join(", "));
            reasons.insert("sampling", said);
        }
    }
}

/// A 3D U-Net: whole volumes while they are small, else patches.
fn volumes(network: &NetworkConfig, largest: [usize; 3], config: &mut RunConfig, reasons: &mut Reasons) {
    config.batch_size = 2;
    reasons.insert("batch_size", "2 where they fit, as nnU-Net's and MONAI's".into());
    reasons.insert("dice_factor", "cross entropy + soft Dice without background, in equal parts".into());
    let multiple = network.multiples();
    let padded = [0, 1, 2].map(|k| largest[k].next_multiple_of(multiple[k]));
    if padded.iter().product::<usize>() > MOST_PATCH {
        let patch = shrunk(padded, largest, multiple, |patch| patch.iter().product::<usize>() <= MOST_PATCH);
        config.patch = patch.to_vec();
        let said = format!(
            "volumes of {} voxels are cut: a patch has at most {MOST_PATCH} voxels, more of the longer sides; smaller ones where \
             memory is short",
            sides(padded)
        );
        reasons.insert("patch", said);
        reasons.insert("foreground_share", "a third of the patches is centred on foreground, as nnU-Net's".into());
    } else {
        reasons.insert("patch", format!("none: whole volumes, padded to {} voxels", sides(padded)));
    }
    if let Some(flat) = (0..3).find(|&k| 2 * padded[k] > 3 * largest[k]) {
        let said = format!(
            "the published five levels halve all axes alike, so that {} voxels along axis {flat} are padded to {}; this U-Net cannot \
             pool one axis less than another: compare with unet2d",
            largest[flat], padded[flat]
        );
        reasons.insert("network.channels", said);
    }
}

/// The largest patch that `fits`, from `padded` down: always the side that is the largest part of the volume's loses a multiple.
pub(super) fn shrunk(
    padded: [usize; 3],
    volume: [usize; 3],
    multiple: [usize; 3],
    fits: impl Fn([usize; 3]) -> bool,
) -> [usize; 3] {
    let mut patch = padded;
    while !fits(patch) {
        match smaller(patch, volume, multiple) {
            Some(next) => patch = next,
            None => return patch,
        }
    }
    patch
}

/// The next smaller patch; `None` of the smallest.
pub(super) fn smaller(patch: [usize; 3], volume: [usize; 3], multiple: [usize; 3]) -> Option<[usize; 3]> {
    let part = |k: usize| patch[k] as f64 / volume[k].max(1) as f64;
    // Of equals the longest side, so that the order does not hang on the axes' numbers alone.
    let axis = (0..3)
        .filter(|&k| patch[k] > multiple[k])
        .max_by(|&a, &b| part(a).total_cmp(&part(b)).then(patch[a].cmp(&patch[b])))?;
    let mut next = patch;
    next[axis] -= multiple[axis];
    Some(next)
}

/// A 2D U-Net: slices across the coarsest axis.
fn slices(fingerprint: &Fingerprint, target: Option<[f64; 3]>, config: &mut RunConfig, reasons: &mut Reasons) {
    let spacing = target.unwrap_or(fingerprint.spacing.median);
    config.slice_axis = coarsest(spacing);
    reasons.insert("slice_axis", format!("the coarsest of {} mm", millimetres(spacing)));
    reasons.insert("dice_factor", "cross entropy + soft Dice without background, over all slices of a batch".into());
}

/// Changes that the data allow.
fn augmentation(
    fingerprint: &Fingerprint,
    network: &NetworkConfig,
    median: [usize; 3],
    config: &mut RunConfig,
    reasons: &mut Reasons,
) {
    let sided = |name: &str| {
        let name = name.to_lowercase();
        ["left", "right"].iter().any(|side| name.contains(side))
    };
    let two_sided = fingerprint.classes.iter().any(|class| sided(&class.name));
    let whole = config.patch.is_empty() && matches!(network, NetworkConfig::OssNet(_) | NetworkConfig::UNet(_));
    let shift = median.map(|side| (side / SHIFT.1).min(SHIFT.0));
    config.augment = Augment::None;
    config.augmentation = Augmentation {
        flip: if two_sided { 0.0 } else { 0.5 },
        flip_axes: [true, false, false],
        shift: if whole && shift != [0; 3] { 0.5 } else { 0.0 },
        max_shift: shift.map(|voxels| voxels.max(1)),
        brightness: if fingerprint.is_ct() { 0.0 } else { 0.5 },
        brightness_scale: 0.1,
        contrast: if fingerprint.is_ct() { 0.0 } else { 0.5 },
        noise: 0.3,
        noise_sigma: 0.1,
        ..Augmentation::NONE
    };
    let flips = if two_sided { "no flips, since classes are left or right" } else { "left-right flips" };
    let values = if fingerprint.is_ct() {
        "noise (Hounsfield units mean the same in all scans)"
    } else {
        "brightness, contrast, noise"
    };
    let moves = if whole {
        format!("shifts of up to {} voxels, a {}th of a side", sides(shift), SHIFT.1)
    } else {
        "no shifts, since patches are drawn anywhere".into()
    };
    reasons.insert("augment", format!("see [augmentation]: {flips}, {moves}, {values}"));
}

/// `64×80×64`.
pub(super) fn sides(shape: [usize; 3]) -> String {
    shape.map(|side| side.to_string()).join("×")
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::{CaseFacts, ClassFacts, Intensities, SCHEMA_VERSION, Spread};
    use super::*;

    /// A data set of equal cases, but for their spacings.
    fn cohort(shape: [usize; 3], spacings: &[[f64; 3]], channel: &str, classes: &[(&str, u64)]) -> Fingerprint {
        let case = |spacing: &[f64; 3]| CaseFacts {
            name: "case".into(),
            shape,
            spacing: *spacing,
            orientation: "RAS".into(),
            voxels: classes.iter().map(|class| class.1).collect(),
        };
        let facts = |(value, class): (usize, &(&str, u64))| ClassFacts {
            value: value as u8,
            name: class.0.into(),
            cases: spacings.len(),
            voxels: class.1,
            share: 0.1,
        };
        Fingerprint {
            schema_version: SCHEMA_VERSION,
            name: "drawn".into(),
            layout: "Decathlon".into(),
            channels: vec![channel.into()],
            clip: None,
            classes: classes.iter().enumerate().map(facts).collect(),
            orientations: BTreeMap::new(),
            shape: Spread::of([shape.map(|side| side as f64)].into_iter()),
            spacing: Spread::of(spacings.iter().copied()),
            foreground_share: 0.1,
            intensities: vec![Intensities { low: -150.0, median: 40.0, high: 260.0, mean: 40.0, std: 60.0 }],
            cases: spacings.iter().map(case).collect(),
        }
    }

    const TWO: [(&str, u64); 2] = [("background", 900), ("organ", 100)];

    #[test]
    fn small_volumes_are_taken_whole_and_have_fewer_encoder_blocks() {
        let hippocampi = cohort([36, 50, 36], &[[1.0; 3]; 4], "MRI", &TWO);
        let Draft { config, reasons, .. } = draft(&hippocampi, "unet3d", "data", 3).unwrap();
        assert!(
            config.patch.is_empty() && config.preprocessing.spacing.is_empty() && config.preprocessing.clip.is_empty()
        );
        assert_eq!((config.batch_size, config.seed, config.dice_factor), (2, 3, 1.0));
        assert!(reasons["patch"].contains("48×64×48"), "{reasons:?}");
        // A sixteenth of a side, not five voxels of 36.
        assert_eq!(config.augmentation.max_shift, [2, 3, 2]);
        let Draft { config, .. } = draft(&hippocampi, "oss-net-c", "data", 0).unwrap();
        assert_eq!(config.network.encoder_channels, [16, 32, 64]);
        assert_eq!(config.training_samples, 2048, "64,800 / 32, in steps of 256");
        let title = config.network(1, 1, [36, 50, 36]).unwrap().title();
        assert_eq!(title, "OSS-Net C (encoder 16-32-64)");
        let small = draft(&hippocampi, "oss-net-c-small", "data", 0).unwrap().config;
        assert!(small.network.encoder_channels.is_empty() && small.optimizer.rate == 3e-3);
    }

    #[test]
    fn large_volumes_are_cut_in_proportion() {
        let heads = cohort([240, 240, 155], &[[1.0; 3]; 3], "FLAIR", &TWO);
        let Draft { config, .. } = draft(&heads, "unet3d", "data", 0).unwrap();
        let patch: Vec<usize> = config.patch.clone();
        assert!(patch.iter().product::<usize>() <= MOST_PATCH && patch.iter().all(|side| side % 16 == 0), "{patch:?}");
        assert!(patch[0] > patch[2] && patch.iter().product::<usize>() > MOST_PATCH / 2, "{patch:?}");
        assert_eq!(config.augmentation.shift, 0.0, "patches are drawn anywhere");
        assert_eq!(draft(&heads, "oss-net-c", "data", 0).unwrap().config.training_samples, 16384);
        assert!(draft(&heads, "oss-net-c", "data", 0).unwrap().config.network.encoder_channels.is_empty());
    }

    #[test]
    fn stacks_of_slices() {
        let spacings: Vec<[f64; 3]> = (0..11).map(|n| [0.8, 0.8, 4.0 + 0.2 * f64::from(n)]).collect();
        let livers = cohort([320, 320, 30], &spacings, "CT", &TWO);
        let Draft { config, reasons, .. } = draft(&livers, "unet2d", "data", 0).unwrap();
        // The tenth percentile of 4.0 to 6.0.
        assert_eq!(config.preprocessing.spacing, [0.8, 0.8, 4.2]);
        assert_eq!((config.slice_axis, config.preprocessing.clip), (2, vec![-150.0, 260.0]));
        assert!(reasons["preprocessing.spacing"].contains("tenth percentile"), "{reasons:?}");
        assert_eq!(
            (config.augmentation.brightness, config.augmentation.noise),
            (0.0, 0.3),
            "Hounsfield units mean something"
        );
        let flat = draft(&cohort([128, 128, 9], &[[1.0; 3]], "MRI", &TWO), "unet3d", "data", 0).unwrap();
        assert!(
            flat.reasons["network.channels"].contains("9 voxels along axis 2 are padded to 16"),
            "{:?}",
            flat.reasons
        );
    }

    #[test]
    fn what_the_classes_say() {
        let kidneys = [("background", 9000), ("left kidney", 500), ("right kidney", 500)];
        let config = draft(&cohort([64; 3], &[[1.0; 3]], "CT", &kidneys), "unet3d", "data", 0).unwrap().config;
        assert_eq!(config.augmentation.flip, 0.0);
        let tumour = [("background", 9000), ("liver", 1000), ("tumour", 9)];
        let Draft { config, reasons, .. } =
            draft(&cohort([64; 3], &[[1.0; 3]], "CT", &tumour), "o-net", "data", 0).unwrap();
        assert_eq!((config.sampling, config.augmentation.flip), (SamplingRule::Class, 0.5));
        assert!(reasons["sampling"].contains("tumour"), "{reasons:?}");
    }

    #[test]
    fn patches_shrink_to_the_smallest_and_no_further() {
        let mut patch = [64, 48, 32];
        let mut seen = 0;
        while let Some(next) = smaller(patch, [60, 45, 30], [16; 3]) {
            assert!((0..3).map(|k| patch[k] - next[k]).sum::<usize>() == 16);
            (patch, seen) = (next, seen + 1);
        }
        assert_eq!((patch, seen), ([16; 3], 3 + 2 + 1));
    }
}
