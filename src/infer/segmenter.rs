//! One case from the scan to its segmentation.

use std::time::Instant;

use super::occupancy::fitting_shape;
use super::oom::InferenceOom;
use super::sliding_window::{self, Decision, Destination};
use super::{Occupancy, QueryGrid, Search, SlidingWindow, seeding, sound};
use crate::data::preprocess::{self, GridTransform};
use crate::data::{Geometry, Labels, Padding, Volume};
use crate::device::Target;
use crate::error::{Error, Result};
use crate::memory::{Phase, default_cpu_budget, format_bytes, size};
use crate::models::config::LARGEST_SIDE;
use crate::models::{Architecture, Network, OssNet};
use crate::nn::Parameters;
use crate::ops::lattice::{self, Lattice};
use crate::task::{PreparedCase, Task};

/// How scans are segmented.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmenterOptions {
    /// Which points an occupancy network is asked.
    pub search: Search,
    /// How a U-Net goes through a volume.
    pub windows: SlidingWindow,
    /// Of one output, the probability above which a point is inside.
    pub threshold: f32,
    /// The same for the low-resolution probability that a seeded search begins with.
    pub seed_threshold: f32,
    /// Points that are decoded at once; 0 for as many as the free memory admits.
    pub most_points: usize,
    /// Shape of the answer along the axes in memory; `None` for the scan's own. Occupancy networks only.
    pub shape: Option<[usize; 3]>,
    /// Keep the probabilities of all voxels.
    pub probabilities: bool,
    /// Evaluate every point as well, and compare.
    pub verify: bool,
}

impl Default for SegmenterOptions {
    fn default() -> Self {
        Self {
            search: Search::hierarchical(),
            windows: SlidingWindow::default(),
            threshold: 0.5,
            seed_threshold: 0.5,
            most_points: 0,
            shape: None,
            probabilities: false,
            verify: false,
        }
    }
}

/// How a search compares with asking everywhere.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Verification {
    /// Voxels whose classes differ.
    pub different_voxels: u64,
    /// Points that the dense evaluation took.
    pub points: u64,
    /// Its seconds.
    pub seconds: f64,
}

/// A case's answer.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// Label values as the training data had them, on the scan's own grid, or its box divided as asked.
    pub labels: Labels,
    /// Probability of each output, channels last, on the same grid. Of points that a search did not evaluate it is 0 or 1.
    pub probabilities: Option<Volume>,
    /// Points evaluated at each stage of a search; the times a U-Net was asked.
    pub evaluated: Vec<u64>,
    /// Seconds of the answer, without those of [`Segmentation::verification`].
    pub seconds: f64,
    /// Of those, seconds of what followed a U-Net's answers: probabilities, averages, interpolation, classes.
    pub after_network_seconds: Option<f64>,
    /// Most bytes that the engine held at a time, weights and volume included.
    pub peak_bytes: u64,
    /// The comparison, if asked for.
    pub verification: Option<Verification>,
}

/// A network with a task and settings, ready for scans.
pub struct Segmenter<'a> {
    pub(super) network: &'a dyn Network,
    pub(super) parameters: &'a Parameters,
    pub(super) task: &'a Task,
    pub(super) options: SegmenterOptions,
    /// The shape that a U-Net sees: what it was trained on.
    frame: Option<Shape>,
    /// The command has flags for windows and points.
    pub(super) flags: bool,
    /// What is held beside this network's work.
    pub(super) beside: Beside,
}

/// What other networks and their answers hold while one is at work.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside {
    /// Bytes on the device: weights.
    pub device: u64,
    /// On the host for each voxel of the scan.
    pub scan: u64,
    /// On the host for each voxel of the answer.
    pub answer: u64,
    /// On the host, whatever the scan.
    pub fixed: u64,
}

pub(super) type Shape = [usize; 3];

/// Labels, probabilities and points on the grid that was asked for.
type Placed = (Labels, Option<Volume>, Vec<u64>);

/// Classes and, if wanted, probabilities of a grid's points.
pub(super) struct Answer {
    classes: Vec<u8>,
    probabilities: Option<Vec<f32>>,
    evaluated: Vec<u64>,
}

impl Segmentation {
    /// Adds what another network's answer took.
    pub(super) fn add(&mut self, other: &Self) {
        let stages = self.evaluated.len().max(other.evaluated.len());
        self.evaluated.resize(stages, 0);
        self.evaluated.iter_mut().zip(&other.evaluated).for_each(|(own, other)| *own += other);
        self.seconds += other.seconds;
        let after = [self.after_network_seconds, other.after_network_seconds];
        self.after_network_seconds = after.iter().any(Option::is_some).then(|| after.iter().flatten().sum());
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }
}

impl SegmenterOptions {
    /// The defaults for a network: official weights choose points as the official code does.
    pub fn of(network: &dyn Architecture) -> Self {
        let search = if network.is_reference() { Search::reference() } else { Search::hierarchical() };
        Self { search, ..Self::default() }
    }
}

impl<'a> Segmenter<'a> {
    /// Checks that `options` make sense for `network`. Without windows of its own a U-Net goes through a volume in windows of
    /// the shape that it was trained on, as far as the checkpoint knows it.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the option, [`Error::Model`] for a trained shape that the network cannot have.
    pub fn new(
        network: &'a dyn Network,
        parameters: &'a Parameters,
        task: &'a Task,
        mut options: SegmenterOptions,
    ) -> Result<Self> {
        options.search.check()?;
        options.windows.check()?;
        let (architecture, occupancy) = (network.architecture(), network.occupancy());
        let frame = match occupancy {
            None if options.windows.size.is_none() => frame_of(architecture, task)?,
            _ => None,
        };
        options.windows.size = options.windows.size.or(frame);
        if options.threshold.is_nan() || options.seed_threshold.is_nan() {
            return Err(Error::Usage("a threshold that is no number; give for example 0.5".into()));
        }
        if occupancy.is_none() && options.shape.is_some() {
            return Err(Error::Usage(
                "a U-Net answers on the scan's own grid; another resolution needs an occupancy network".into(),
            ));
        }
        if let Some(occupancy) = occupancy
            && options.search.seeded
            && !occupancy.config().has_auxiliary()
        {
            return Err(Error::Usage(format!(
                "the encoder of {} gives no low-resolution segmentation to start from; omit --seeded",
                architecture.title()
            )));
        }
        Ok(Self { network, parameters, task, options, frame, flags: true, beside: Beside::default() })
    }

    /// What is added around a volume of `shape` before the network sees it: up to what it saw in training, or the next
    /// multiple that it admits.
    pub(super) fn padding(&self, shape: Shape) -> Result<Padding> {
        match (self.network.occupancy(), self.frame) {
            (Some(network), _) => Padding::to_shape(shape, fitting_shape(network.config(), shape)),
            (None, None) => {
                Ok(Padding::to_multiple(shape, self.task.preprocessing.multiple.map(|multiple| multiple.max(1))))
            }
            (None, Some(frame)) => Padding::to_shape(shape, [0, 1, 2].map(|k| shape[k].max(frame[k]))),
        }
    }

    /// Segments a case that was prepared for any grid, as [`Segmenter::segment`] does the scan that it was made of.
    ///
    /// # Errors
    /// As for [`Segmenter::segment`].
    pub fn case(&self, case: &PreparedCase, tick: &mut dyn FnMut() -> Result<()>) -> Result<Segmentation> {
        self.case_towards(case, &case.way, tick)
    }

    /// Segments a case for the grid that `way` leads to.
    fn case_towards(
        &self,
        case: &PreparedCase,
        way: &GridTransform,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Segmentation> {
        let padding = self.padding(case.way.resampled)?;
        let named = |error: Error| error.of_case(&case.name);
        if padding == case.way.padding {
            return self.prepared(case.volume.clone(), way, tick).map_err(named);
        }
        let shapes = [case.way.resampled, padding.outer(case.way.resampled)];
        preprocess::afford("padding", shapes, case.volume.channels, "crop the scan, or choose another network")?;
        let volume = case.volume.crop(&case.way.padding)?.pad(&padding, 0.0);
        self.prepared(volume, &GridTransform { padding, ..way.clone() }, tick).map_err(named)
    }

    /// Segments an image as read. `name` is for messages; `tick` is called after each piece of work and may stop it.
    ///
    /// # Errors
    /// An image that does not fit the network, an answer that is not finite, what `tick` reports, or no memory.
    pub fn segment(&self, name: &str, image: Volume, tick: &mut dyn FnMut() -> Result<()>) -> Result<Segmentation> {
        let (volume, way) = self.task.image(name, image, |shape| self.padding(shape))?;
        self.prepared(volume, &way, tick).map_err(|error| error.of_case(name))
    }

    /// Segments a volume that is on the network's grid already; `way` leads back to the scan's.
    ///
    /// # Errors
    /// As for [`Segmenter::segment`].
    pub fn prepared(
        &self,
        volume: Volume,
        way: &GridTransform,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Segmentation> {
        let device = self.parameters.device();
        let (shape, geometry) = (volume.shape, volume.geometry);
        let answer = device.in_phase(Phase::Evaluate, || {
            device.ledger(|ledger| ledger.reset_peak());
            match self.network.occupancy() {
                Some(network) => self.in_space(network, volume, way, tick),
                None => self.on_grid(volume, way, tick),
            }
        });
        answer.map_err(|error| match error {
            Error::OutOfMemory(error) => self
                .work(shape, geometry, way, self.strips(shape, geometry, way).unwrap_or(1))
                .explain(*error, device)
                .into(),
            other => other,
        })
    }

    /// A scan on its way through the network, for plans.
    pub(super) fn work<'b>(
        &'b self,
        shape: Shape,
        geometry: Geometry,
        way: &'b GridTransform,
        strips: usize,
    ) -> InferenceOom<'b> {
        let &Self { network, task, ref options, flags, .. } = self;
        let (grid, way) = (self.grid(shape, way), self.interpolated(way));
        InferenceOom { network, task, options, shape, geometry, grid, way, strips, flags }
    }

    /// The way to the scan's grid if a U-Net's probabilities are interpolated on it: wherever the scan was resampled.
    pub(super) fn interpolated<'b>(&self, way: &'b GridTransform) -> Option<&'b GridTransform> {
        (self.network.occupancy().is_none() && way.resampled != way.shape).then_some(way)
    }

    /// The points that an occupancy network answers for: those of the scan's box. The official lattices begin at the padded
    /// volume's first voxel.
    pub(super) fn grid(&self, shape: Shape, way: &GridTransform) -> QueryGrid {
        match self.on_padded_grid() {
            true => QueryGrid::voxels(shape),
            false => QueryGrid::over(way, self.options.shape.unwrap_or(way.shape)),
        }
    }

    fn on_padded_grid(&self) -> bool {
        self.network.architecture().is_reference() && self.options.shape.is_none()
    }

    /// A dense network's answer.
    fn on_grid(
        &self,
        volume: Volume,
        way: &GridTransform,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Segmentation> {
        if self.options.probabilities {
            // On the scan's grid, and on the network's where they are brought from there as a whole.
            let ([x, y, z], whole) = (way.shape, usize::from(self.interpolated(way).is_none()));
            let voxels = (x * y * z).saturating_add(whole * volume.len());
            size::within_host_budget(&[voxels, self.network.architecture().classes(), size_of::<f32>()]).map_err(
                |told| {
                    let problem = format!("keeping the probabilities of {x}x{y}x{z} voxels {told}");
                    Error::Model(format!("{problem}; omit --probabilities, or raise --memory-budget"))
                },
            )?;
        }
        let started = Instant::now();
        let decision = Decision { threshold: self.options.threshold, keep: self.options.probabilities };
        let strips = self.strips(volume.shape, volume.geometry, way)?;
        let destination = Destination { decision, way: self.interpolated(way), strips };
        let windows = &self.options.windows;
        let found = sliding_window::predict_on(self.network, self.parameters, &volume, windows, destination, tick)?;
        let answer =
            Answer { classes: found.classes, probabilities: found.probabilities, evaluated: vec![found.passes] };
        let peak_bytes = self.peak_bytes();
        let (labels, probabilities, evaluated) = match destination.way {
            Some(way) => self.placed(answer, way.shape, way),
            None => self.restored(answer, (volume.shape, volume.geometry), way)?,
        };
        let seconds = started.elapsed().as_secs_f64();
        let after_network_seconds = Some(found.after.as_secs_f64());
        Ok(Segmentation {
            labels,
            probabilities,
            evaluated,
            seconds,
            after_network_seconds,
            peak_bytes,
            verification: None,
        })
    }

    /// An occupancy network's answer.
    fn in_space(
        &self,
        network: &OssNet,
        volume: Volume,
        way: &GridTransform,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Segmentation> {
        let (started, options) = (Instant::now(), &self.options);
        let (shape, geometry) = (volume.shape, volume.geometry);
        let occupancy = self.encoded(network, volume)?;
        let grid = self.grid(shape, way);
        self.afford(&grid)?;
        let answer = self.ask(&occupancy, &grid, &options.search, options.probabilities, tick)?;
        let (seconds, peak_bytes) = (started.elapsed().as_secs_f64(), self.peak_bytes());
        let verification = match options.verify {
            false => None,
            true => {
                let started = Instant::now();
                let dense = self.ask(&occupancy, &grid, &Search::dense(), false, tick)?;
                let different = dense.classes.iter().zip(&answer.classes).filter(|(a, b)| a != b).count();
                Some(Verification {
                    different_voxels: different as u64,
                    points: grid.len() as u64,
                    seconds: started.elapsed().as_secs_f64(),
                })
            }
        };
        drop(occupancy);
        let (labels, probabilities, evaluated) = match self.on_padded_grid() {
            true => self.restored(answer, (shape, geometry), way)?,
            false => self.placed(answer, grid.shape, way),
        };
        let after_network_seconds = None;
        Ok(Segmentation { labels, probabilities, evaluated, seconds, after_network_seconds, peak_bytes, verification })
    }

    /// Checks that an answer of so many points can be held, before an hour's work finds that it cannot: two lattices, and on
    /// the host the classes and the probabilities that are kept.
    fn afford(&self, grid: &QueryGrid) -> Result<()> {
        let device = self.parameters.device();
        let points = grid.len() as u64;
        let kept = if self.options.probabilities { 4 * self.network.architecture().classes() as u64 } else { 0 };
        let (lattices, host) = (2 * points + points / 4, points.saturating_mul(1 + kept));
        let (wanted, left) = match device.target() {
            Target::Cpu { .. } => {
                (host.saturating_add(lattices), device.budget().saturating_sub(device.live().total()))
            }
            Target::Cuda(_) => (host, default_cpu_budget()),
        };
        if wanted <= left {
            return Ok(());
        }
        let ([x, y, z], wanted, left) = (grid.shape, format_bytes(wanted), format_bytes(left));
        let problem = format!("an answer of {x}x{y}x{z} voxels takes {wanted}, and the memory budget leaves {left}");
        Err(Error::Model(format!("{problem}; ask for a coarser --resolution or --spacing, or raise --memory-budget")))
    }

    /// Asks an occupancy network at the points of `grid` that `search` chooses.
    pub(super) fn ask(
        &self,
        occupancy: &Occupancy<'_>,
        grid: &QueryGrid,
        search: &Search,
        keep: bool,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Answer> {
        let (options, outputs) = (&self.options, occupancy.config().classes);
        let mut kept = keep.then(|| vec![0.0; grid.len() * outputs]);
        let coarsest = grid.strided(search.stages[0]);
        let begin = |lattice: &mut Lattice| match search.seeded {
            true => seeding::mark(occupancy, search.rule, &coarsest, options.seed_threshold, lattice),
            false => lattice.mark_all(),
        };
        let (lattice, evaluated) =
            search.run(occupancy.device(), grid.shape, occupancy.most_points(), begin, |stride, indices| {
                tick()?;
                let logits = occupancy.logits(&grid.strided(stride), indices.clone())?;
                if let Some(kept) = &mut kept {
                    let found = occupancy.probabilities(&logits)?;
                    for (index, row) in indices.to_vec()?.chunks_exact(3).zip(found.chunks_exact(outputs)) {
                        let [x, y, z] = [0, 1, 2].map(|k| index[k] as usize * stride);
                        let point = (x * grid.shape[1] + y) * grid.shape[2] + z;
                        kept[point * outputs..][..outputs].copy_from_slice(row);
                    }
                }
                sound::check(&logits.tensor())?;
                lattice::classify(&logits.tensor(), options.threshold)
            })?;
        let classes = lattice.to_classes()?;
        if let Some(kept) = &mut kept {
            let supposed = lattice.to_evaluated()?.into_iter().zip(&classes);
            for (row, (_, &class)) in kept.chunks_exact_mut(outputs).zip(supposed).filter(|(_, (done, _))| !done) {
                match row {
                    [value] => *value = f32::from(class),
                    row => row[usize::from(class)] = 1.0,
                }
            }
        }
        Ok(Answer { classes, probabilities: kept, evaluated })
    }

    /// An answer on the network's grid brought to the scan's.
    fn restored(&self, answer: Answer, (shape, geometry): (Shape, Geometry), way: &GridTransform) -> Result<Placed> {
        let labels = Labels { shape, voxels: answer.classes, geometry };
        let labels = self.task.preprocessing.restore_labels(&labels, way)?;
        let channels = self.network.architecture().classes();
        let volume = answer.probabilities.map(|voxels| Volume { shape, channels, voxels, geometry });
        Ok((labels, volume.map(|volume| way.restore(&volume)).transpose()?, answer.evaluated))
    }

    /// An answer on the scan's own box, divided into `shape` voxels.
    fn placed(&self, answer: Answer, shape: Shape, way: &GridTransform) -> Placed {
        let geometry = if shape == way.shape { way.geometry } else { way.geometry.resized(shape) };
        let values = &self.task.preprocessing.classes;
        let value = |class: u8| values.get(usize::from(class)).copied().unwrap_or(0);
        let voxels = answer.classes.into_iter().map(value).collect();
        let channels = self.network.architecture().classes();
        let probabilities = answer.probabilities.map(|voxels| Volume { shape, channels, voxels, geometry });
        (Labels { shape, voxels, geometry }, probabilities, answer.evaluated)
    }

    pub(super) fn peak_bytes(&self) -> u64 {
        self.parameters.device().ledger(|ledger| ledger.peak().by_role.total())
    }
}

/// The shape that a dense network is asked in, if the checkpoint knows the one it was trained on. Slices of a 2D network are independent:
/// nothing is added across them.
fn frame_of(architecture: &dyn Architecture, task: &Task) -> Result<Option<Shape>> {
    let Some(mut frame) = task.preprocessing.trained_shape else { return Ok(None) };
    let multiples = architecture.multiples().map(|multiple| multiple.max(1));
    let planar = architecture.supervision().slice_axis();
    if (0..3).any(|k| planar != Some(k) && !(1..=LARGEST_SIDE / multiples[k]).contains(&(frame[k] / multiples[k]))) {
        return Err(Error::Model(format!(
            "the checkpoint says that its U-Net was trained on {frame:?} voxels, which it does not admit; copy or make the \
             checkpoint again"
        )));
    }
    frame = [0, 1, 2].map(|k| frame[k] / multiples[k] * multiples[k]);
    if let Some(axis) = planar {
        frame[axis] = 1;
    }
    Ok(Some(frame))
}

/// The labels that a network gives to a prepared case, with the stored label values: the same that [`Segmenter`] with these
/// options gives to the scan. `tick` is called after each piece of work and may stop it.
///
/// # Errors
/// No memory, a case that does not fit the network, or what `tick` reports.
pub fn segment(
    network: &dyn Network,
    parameters: &Parameters,
    task: &Task,
    case: &PreparedCase,
    options: SegmenterOptions,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Labels> {
    let segmenter = Segmenter::new(network, parameters, task, options)?;
    Ok(Segmenter { flags: false, ..segmenter }.case(case, tick)?.labels)
}

/// As [`segment`] with the default options, on the grid that the scan was resampled to, before it was padded.
///
/// # Errors
/// As there.
pub fn segment_resampled(
    network: &dyn Network,
    parameters: &Parameters,
    task: &Task,
    case: &PreparedCase,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Labels> {
    let segmenter = Segmenter::new(network, parameters, task, SegmenterOptions::of(network.architecture()))?;
    let way = GridTransform { shape: case.way.resampled, ..case.way.clone() };
    Ok(Segmenter { flags: false, ..segmenter }.case_towards(case, &way, tick)?.labels)
}
