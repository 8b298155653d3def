//! What a network is asked to do, and cases in memory as it takes them.

use serde::{Deserialize, Serialize};

use crate::data::preprocess::{GridTransform, Preprocessing};
use crate::data::{Axes, BorderPoints, Dataset, Labels, Padding, Scan, Volume, brats, validate};
use crate::error::{Error, Result};
use crate::models::Architecture;
use crate::text::plural;

/// What a network is asked to do, stored in every checkpoint: how scans are prepared, and what its classes are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Name of the data set it was trained on.
    pub name: String,
    /// From a scan to the network's grid and back.
    pub preprocessing: Preprocessing,
    /// Name of each class, background first.
    pub class_names: Vec<String>,
}

/// A scan on the network's grid.
#[derive(Clone, Debug)]
pub struct PreparedCase {
    /// Its name.
    pub name: String,
    /// Normalised, resampled and padded.
    pub volume: Volume,
    /// Class numbers on the same grid, if labelled.
    pub labels: Option<Labels>,
    /// Voxels near a class border of them.
    pub border: Option<BorderPoints>,
    /// The labels as read, on the scan's own grid with the stored values.
    pub truth: Option<Labels>,
    /// The value in [`PreparedCase::truth`] of voxels that are not scored; in [`PreparedCase::labels`] they are
    /// [`Labels::IGNORED`].
    pub ignore: Option<u8>,
    /// The first channel as read, on the scan's own grid.
    pub image: Vec<f32>,
    /// From the network's grid to the scan's.
    pub way: GridTransform,
}

/// What cases are padded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadTo {
    /// Each to its own multiple.
    Own,
    /// All to the largest of them.
    Largest,
    /// All to one shape.
    Given([usize; 3]),
}

impl PadTo {
    /// The grid that a network's training cases need: latents belong to one shape.
    pub fn of(network: &dyn Architecture) -> Self {
        network.volume_shape().map_or(PadTo::Own, PadTo::Given)
    }

    /// The shape, where it does not depend on the case.
    pub fn shape(self) -> Option<[usize; 3]> {
        match self {
            PadTo::Given(shape) => Some(shape),
            PadTo::Own | PadTo::Largest => None,
        }
    }
}

impl Task {
    /// The task that a data set poses; sides are padded to a multiple of `multiple`.
    pub fn of(dataset: &Dataset, multiple: [usize; 3]) -> Self {
        Self {
            name: dataset.name.clone(),
            preprocessing: Preprocessing {
                channels: dataset.channels.clone(),
                classes: dataset.class_values(),
                axes: Axes::Canonical,
                clip: dataset.clip,
                spacing: None,
                resize: None,
                merge: false,
                multiple,
                trained_spacing: None,
                trained_shape: None,
            },
            class_names: dataset.classes.iter().map(|class| class.name.clone()).collect(),
        }
    }

    /// The same task with every class but background made one.
    pub fn merged(mut self) -> Self {
        let known = self.preprocessing.classes.iter().copied().zip(self.class_names);
        let background = known.into_iter().next().unwrap_or((0, "background".into()));
        self.preprocessing.classes = vec![background.0, 1];
        self.class_names = vec![background.1, "foreground".into()];
        self.preprocessing.merge = true;
        self
    }

    /// The same task, with the spacing at which the network will see the data set's training scans, by their headers.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] of a scan that cannot be read, [`Error::Usage`] for a spacing that cannot be applied.
    pub fn measured(mut self, dataset: &Dataset) -> Result<Self> {
        let seen = dataset.training.iter().map(|case| {
            let (shape, geometry) = case.grid(self.preprocessing.axes)?;
            self.preprocessing.seen_spacing(shape, &geometry)
        });
        let seen = seen.collect::<Result<Vec<_>>>()?;
        if !seen.is_empty() {
            let median = |axis: usize| {
                let mut sorted: Vec<f64> = seen.iter().map(|spacing| spacing[axis]).collect();
                sorted.sort_unstable_by(f64::total_cmp);
                (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
            };
            self.preprocessing.trained_spacing = Some([0, 1, 2].map(median));
        }
        Ok(self)
    }

    /// The greatest side along each axis of the training cases on the network's grid, by their headers.
    ///
    /// # Errors
    /// As [`Task::measured`].
    pub fn largest(&self, dataset: &Dataset) -> Result<[usize; 3]> {
        let mut largest = [0; 3];
        for case in &dataset.training {
            let (shape, geometry) = case.grid(self.preprocessing.axes)?;
            validate::has_extent(shape, case.images[0].path())?;
            let shape = self.preprocessing.shape(shape, &geometry)?;
            largest = [0, 1, 2].map(|k| largest[k].max(shape[k]));
        }
        Ok(largest)
    }

    /// Bytes that all labelled cases of a data set take in memory, on a grid of `shape` or each on its own, and the most voxels
    /// of one as stored or as prepared; by their headers.
    ///
    /// # Errors
    /// As [`Task::measured`].
    pub fn held_bytes(&self, dataset: &Dataset, shape: Option<[usize; 3]>) -> Result<(u64, u64)> {
        let channels = self.preprocessing.channels.len() as u64;
        let (mut held, mut largest) = (0u64, 0u64);
        for case in dataset.training.iter().chain(&dataset.validation) {
            let (stored, geometry) = case.grid(self.preprocessing.axes)?;
            let prepared = shape.map_or_else(|| self.preprocessing.shape(stored, &geometry), Ok)?;
            let [stored, prepared] = [stored, prepared].map(|shape| shape.iter().product::<usize>() as u64);
            // Image, labels and border on the network's grid; first channel and labels on the scan's own.
            held += prepared * (4 * channels + 2) + stored * 5;
            largest = largest.max(stored).max(prepared);
        }
        Ok((held, largest))
    }

    /// The official BraTS task, for weights that say nothing of theirs: all tumour against the rest, in the file's axes.
    pub fn official_brats() -> Self {
        Self {
            name: "BraTS".into(),
            preprocessing: Preprocessing {
                channels: brats::MODALITIES.map(str::to_owned).to_vec(),
                classes: vec![0, 1],
                axes: Axes::Stored,
                clip: None,
                spacing: None,
                resize: None,
                merge: true,
                multiple: [2; 3],
                trained_spacing: None,
                trained_shape: None,
            },
            class_names: vec!["background".into(), "tumour".into()],
        }
    }

    /// Checks that the task can be one of `network`'s: what a checkpoint says is not to be believed.
    ///
    /// # Errors
    /// [`Error::Model`] that names what does not go together.
    pub fn fits(&self, network: &dyn Architecture) -> Result<()> {
        let Preprocessing { channels, classes, .. } = &self.preprocessing;
        self.preprocessing.check()?;
        if self.class_names.len() != classes.len() {
            let problem = format!("{} names for {} classes", self.class_names.len(), classes.len());
            return Err(Error::Model(format!("the task has {problem}; give each class one")));
        }
        if (channels.len(), self.outputs()) != (network.image_channels(), network.classes()) {
            return Err(Error::Model(format!(
                "the task has {} channels and {} outputs, the network {} and {}; name a task and a network that were \
                 trained together",
                channels.len(),
                self.outputs(),
                network.image_channels(),
                network.classes()
            )));
        }
        Ok(())
    }

    /// What another task differs in so that answers to both cannot be put together, said of the other one: labels, channels, axes.
    /// Spacing and intensities may differ, for each network's answer is brought to the scan's own grid.
    pub fn mismatch(&self, other: &Self) -> Option<String> {
        let (own, its) = (&self.preprocessing, &other.preprocessing);
        match () {
            () if own.classes != its.classes => {
                Some(format!("has the labels {:?}, not {:?}", its.classes, own.classes))
            }
            () if self.class_names != other.class_names => {
                Some(format!("calls its classes {}, not {}", other.class_names.join(", "), self.class_names.join(", ")))
            }
            () if self.outputs() != other.outputs() => {
                Some(format!("has {}, not {}", plural(other.outputs(), "output"), self.outputs()))
            }
            () if own.channels != its.channels => {
                Some(format!("takes the channels {}, not {}", its.channels.join(", "), own.channels.join(", ")))
            }
            () if own.axes != its.axes => Some(format!("sees {:?} axes, not {:?}", its.axes, own.axes)),
            () => None,
        }
    }

    /// Outputs a network needs: 1 for inside against outside, else one a class.
    pub fn outputs(&self) -> usize {
        match self.preprocessing.classes.len() {
            0..=2 => 1,
            classes => classes,
        }
    }

    /// Prepares a scan. A network whose latents belong to one `shape` needs every case padded to it.
    ///
    /// # Errors
    /// Another number of channels than the network's, or a scan that is larger than `shape`.
    pub fn prepare(&self, scan: Scan, shape: Option<[usize; 3]>) -> Result<PreparedCase> {
        let Scan { name, image, labels: truth, border: stored, mut ignore, .. } = scan;
        let first = image.voxels.iter().step_by(image.channels.max(1)).copied().collect();
        let (volume, way) = self.image(&name, image, |own| match shape {
            None => Ok(Padding::to_multiple(own, self.preprocessing.multiple.map(|multiple| multiple.max(1)))),
            Some(shape) => Padding::to_shape(own, shape).map_err(|_| {
                Error::Model(format!(
                    "case {name} has {own:?} voxels but the network was made for {shape:?}; crop or resample it"
                ))
            }),
        })?;
        let labels = truth.as_ref().map(|labels| self.preprocessing.labels(labels, ignore, &way)).transpose()?;
        let border = match (stored, &truth) {
            (Some(map), Some(truth)) => {
                let map = way.prepare(Labels { voxels: map, ..*truth })?;
                let border = BorderPoints::from_map(&map.voxels, map.shape);
                Some(labels.iter().fold(border, BorderPoints::known))
            }
            _ => labels.as_ref().map(BorderPoints::of),
        };
        let truth = match self.preprocessing.merge {
            true => truth.map(|labels| self.merge(&labels, &mut ignore)),
            false => truth,
        };
        Ok(PreparedCase { name, volume, labels, border, truth, ignore, image: first, way })
    }

    /// Checks that an image has the network's channels.
    ///
    /// # Errors
    /// [`Error::Model`] that names the channels.
    pub fn check(&self, name: &str, image: &Volume) -> Result<()> {
        self.check_channels(name, image.channels)
    }

    /// The same for an image of `count` channels that has not been read.
    ///
    /// # Errors
    /// As there.
    pub fn check_channels(&self, name: &str, count: usize) -> Result<()> {
        let channels = &self.preprocessing.channels;
        if count == channels.len() {
            return Ok(());
        }
        Err(Error::Model(format!(
            "case {name} has {}, the network takes {} ({}); give one file with all of them along the fourth axis, or one file \
             a channel in this order",
            plural(count, "image channel"),
            channels.len(),
            channels.join(", ")
        )))
    }

    /// Prepares the image of a case; `padding` says what is added around it, given its shape after resampling.
    ///
    /// # Errors
    /// Another number of channels than the network's, settings that cannot be applied, and what `padding` reports.
    pub fn image(
        &self,
        name: &str,
        image: Volume,
        padding: impl FnOnce([usize; 3]) -> Result<Padding>,
    ) -> Result<(Volume, GridTransform)> {
        self.check(name, &image)?;
        self.preprocessing.image_padded(image, padding)
    }

    /// Labels as read, with every class but background made the task's only one, and `ignore` a value of its own.
    fn merge(&self, labels: &Labels, ignore: &mut Option<u8>) -> Labels {
        let mut table = [self.preprocessing.classes.get(1).copied().unwrap_or(1); 256];
        table[0] = self.preprocessing.classes.first().copied().unwrap_or(0);
        if let Some(value) = ignore {
            table[usize::from(*value)] = Labels::IGNORED;
            *value = Labels::IGNORED;
        }
        labels.mapped(&table)
    }

    /// Class numbers from probabilities `[voxels, outputs]`: 1 above one half if there is one output, else the most
    /// probable (the lowest of equals).
    pub fn classify(&self, probabilities: &[f32]) -> Vec<u8> {
        match self.outputs() {
            1 => probabilities.iter().map(|&p| u8::from(p > 0.5)).collect(),
            outputs => probabilities
                .chunks_exact(outputs)
                .map(|row| {
                    (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best }) as u8
                })
                .collect(),
        }
    }
}
