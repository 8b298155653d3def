//! What a data set is like, in figures: shapes, spacings, orientations, intensities, classes. Of the training cases alone, so that
//! nothing that follows from it has seen what is scored. Kept as JSON beside the configurations that were made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::geometry::Orientation;

use crate::data::{Axes, Case, Dataset, Warning, ct_window, in_parallel, nifti};
use crate::error::{Error, Result};
use crate::evaluate::statistics::quantile;
use crate::interrupt;

/// Version of the form below.
pub const SCHEMA_VERSION: u32 = 1;

/// Values of a case's foreground that percentiles are taken from, evenly spaced: those of 200 cases are a million.
const VALUES_A_CASE: usize = 5000;

/// A data set's training cases in figures. Axes are those in memory (canonical: right, anterior, superior).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Version of this form.
    pub schema_version: u32,
    /// The data set.
    pub name: String,
    /// Its layout.
    pub layout: String,
    /// Name of each channel.
    pub channels: Vec<String>,
    /// Limits of the stored values that the layout names (Hounsfield units).
    pub clip: Option<[f32; 2]>,
    /// The classes, background first.
    pub classes: Vec<ClassFacts>,
    /// How the files' axes run, and in how many cases.
    pub orientations: BTreeMap<String, usize>,
    /// Voxels along each axis.
    pub shape: Spread,
    /// Distance of neighbours along each axis in mm.
    pub spacing: Spread,
    /// Share of the voxels that belong to a class other than background.
    pub foreground_share: f64,
    /// Values of each channel in the foreground (in the whole scan, where there is none).
    pub intensities: Vec<Intensities>,
    /// Each training case.
    pub cases: Vec<CaseFacts>,
}

/// Least, median and greatest along each axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub least: [f64; 3],
    /// The median.
    pub median: [f64; 3],
    /// The greatest.
    pub greatest: [f64; 3],
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFacts {
    /// The value in label files.
    pub value: u8,
    /// Its name.
    pub name: String,
    /// Training cases that hold it.
    pub cases: usize,
    /// Its voxels in all of them.
    pub voxels: u64,
    /// Share of all voxels.
    pub share: f64,
}

/// The values of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intensities {
    /// 0.5 % lie below.
    pub low: f32,
    /// Half lie below.
    pub median: f32,
    /// 99.5 % lie below.
    pub high: f32,
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseFacts {
    /// Its name.
    pub name: String,
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// Their distances in mm.
    pub spacing: [f64; 3],
    /// How the file's axes run.
    pub orientation: String,
    /// Voxels of each class.
    pub voxels: Vec<u64>,
}

impl Fingerprint {
    /// Reads every training case. `progress` hears of each that is done, and of what is odd about it.
    ///
    /// # Errors
    /// The first case that cannot be read, or that there is none.
    pub fn of(dataset: &Dataset, progress: impl Fn(&str, Vec<Warning>) + Sync) -> Result<Self> {
        let cases = &dataset.training;
        if cases.is_empty() {
            return Err(Error::data(&dataset.path, "has no training case", "give a data set with labelled cases"));
        }
        let read = in_parallel(cases.len(), 0, |index| {
            interrupt::check(|| "not all cases were read".into())?;
            let (facts, values, warnings) = look(dataset, &cases[index])?;
            progress(&cases[index].name, warnings);
            Ok((facts, values))
        });
        let (facts, values): (Vec<CaseFacts>, Vec<Vec<Vec<f32>>>) =
            read.into_iter().collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let voxels: u64 = facts.iter().map(|case| case.shape.iter().product::<usize>() as u64).sum();
        let classes: Vec<ClassFacts> = dataset
            .classes
            .iter()
            .enumerate()
            .map(|(class, known)| {
                let held = || facts.iter().map(|case| case.voxels[class]);
                let own: u64 = held().sum();
                ClassFacts {
                    value: known.value,
                    name: known.name.clone(),
                    cases: held().filter(|&count| count > 0).count(),
                    voxels: own,
                    share: own as f64 / voxels.max(1) as f64,
                }
            })
            .collect();
        let mut orientations = BTreeMap::new();
        facts.iter().for_each(|case| *orientations.entry(case.orientation.clone()).or_insert(0) += 1);
        let channel = |channel: usize| values.iter().flat_map(|case| &case[channel]).copied().collect::<Vec<f32>>();
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            name: dataset.name.clone(),
            layout: dataset.layout.name().into(),
            channels: dataset.channels.clone(),
            clip: dataset.clip,
            foreground_share: classes.iter().skip(1).map(|class| class.share).sum(),
            classes,
            orientations,
            shape: Spread::of(facts.iter().map(|case| case.shape.map(|side| side as f64))),
            spacing: Spread::of(facts.iter().map(|case| case.spacing)),
            intensities: (0..dataset.channels.len()).map(|index| Intensities::of(channel(index))).collect(),
            cases: facts,
        })
    }

    /// The file that holds it.
    ///
    /// # Errors
    /// None that a value of this type could cause.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n")
            .map_err(|error| Error::Usage(format!("the fingerprint cannot be written ({error}); report this")))
    }

    /// True if every channel holds Hounsfield units.
    pub fn is_ct(&self) -> bool {
        self.channels.iter().all(|channel| ct_window::is_ct(channel))
    }
}

impl Spread {
    /// Of some values, one triple each.
    pub fn of(values: impl Iterator<Item = [f64; 3]>) -> Self {
        let values: Vec<[f64; 3]> = values.collect();
        let sorted = |axis: usize| {
            let mut sorted: Vec<f64> = values.iter().map(|value| value[axis]).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            sorted
        };
        let of = |pick: &dyn Fn(&[f64]) -> f64| [0, 1, 2].map(|axis| pick(&sorted(axis)));
        Self {
            least: of(&|sorted| sorted.first().copied().unwrap_or(0.0)),
            median: of(&|sorted| quantile(sorted, 0.5)),
            greatest: of(&|sorted| sorted.last().copied().unwrap_or(0.0)),
        }
    }
}

impl Intensities {
    fn of(mut values: Vec<f32>) -> Self {
        values.sort_unstable_by(f32::total_cmp);
        let of = |share: f64| {
            let last = values.len().saturating_sub(1);
            values.get((share * last as f64).round() as usize).copied().unwrap_or(0.0)
        };
        let count = values.len().max(1) as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        Self { low: of(0.005), median: of(0.5), high: of(0.995), mean, std: variance.sqrt() }
    }
}

/// One case, with some of its foreground's values by channel, and what is odd about it.
fn look(dataset: &Dataset, case: &Case) -> Result<(CaseFacts, Vec<Vec<f32>>, Vec<Warning>)> {
    let orientation = match case.images.first() {
        Some(source) => Orientation::letters(&nifti::probe(source)?.grid.affine()),
        None => String::new(),
    };
    let scan = dataset.read(case, Axes::Canonical)?;
    let labels = scan.labels.as_ref().map(|labels| &labels.voxels[..]).unwrap_or_default();
    let mut counts = [0u64; 256];
    labels.iter().for_each(|&value| counts[usize::from(value)] += 1);
    let background = dataset.classes.first().map_or(0, |class| class.value);
    let known = |value: u8| value != background && dataset.classes.iter().any(|class| class.value == value);
    let mut inside: Vec<usize> = (0..labels.len()).filter(|&voxel| known(labels[voxel])).collect();
    if inside.is_empty() {
        inside = (0..scan.image.len()).collect();
    }
    let stride = inside.len().div_ceil(VALUES_A_CASE).max(1);
    let channels = scan.image.channels;
    let values = (0..channels)
        .map(|channel| {
            inside.iter().step_by(stride).map(|voxel| scan.image.voxels[voxel * channels + channel]).collect()
        })
        .collect();
    let facts = CaseFacts {
        name: case.name.clone(),
        shape: scan.image.shape,
        spacing: scan.image.geometry.spacing(),
        orientation,
        voxels: dataset.classes.iter().map(|class| counts[usize::from(class.value)]).collect(),
    };
    Ok((facts, values, scan.warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::embedded;

    #[test]
    fn spreads_and_quantiles() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!((quantile(&[7.0], 0.1), quantile(&[], 0.5)), (7.0, 0.0));
        let spread = Spread::of([[1.0, 5.0, 3.0], [3.0, 4.0, 3.0]].into_iter());
        assert_eq!(spread, Spread { least: [1.0, 4.0, 3.0], median: [2.0, 4.5, 3.0], greatest: [3.0, 5.0, 3.0] });
    }

    /// The embedded heads: what their manifest and their shapes say, and a form that is read back whole.
    #[test]
    fn the_embedded_heads() {
        let dataset = embedded::open("heads").unwrap();
        let found = Fingerprint::of(&dataset, |_, _| {}).unwrap();
        assert_eq!((found.cases.len(), found.channels.len(), found.classes.len()), (4, 1, 2));
        assert!(found.spacing.median.iter().all(|mm| (mm - 2.75).abs() < 0.01), "{:?}", found.spacing);
        assert_eq!(found.classes[1].cases, 4);
        let shares: f64 = found.classes.iter().map(|class| class.share).sum();
        assert!((shares - 1.0).abs() < 1e-9 && found.foreground_share > 0.1, "{shares}");
        let Intensities { low, median, high, .. } = found.intensities[0];
        assert!(low < median && median < high);
        let text = found.to_json().unwrap();
        // The JSON reader is off by a last bit, so that texts are not compared.
        let read: Fingerprint = serde_json::from_str(&text).unwrap();
        assert_eq!((&read.orientations, read.schema_version), (&found.orientations, SCHEMA_VERSION));
        assert_eq!(
            read.cases.iter().map(|case| &case.voxels).collect::<Vec<_>>(),
            found.cases.iter().map(|case| &case.voxels).collect::<Vec<_>>()
        );
        assert!((read.foreground_share - found.foreground_share).abs() < 1e-12);
    }
}
