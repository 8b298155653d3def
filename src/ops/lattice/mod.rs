//! A lattice of points that are evaluated bit by bit: the state of hierarchical inference.
//!
//! Two bytes a point: the class it is taken to have, and whether that was *evaluated* or is *due* to be. Marking ops decide
//! from the classes which points are due, [`Lattice::due`] hands them out in C order, [`Lattice::write`] enters the answers.
//! Nothing here is differentiable; all of it stays on the device but for the number of due points a block.
//!
//! * Points `[X, Y, Z]`, last axis fastest, at most 65,536 along an axis (their indices are exact in f32).
//! * Work: a few byte operations a point and marking; bytes 2 a point.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::ops::Range;

use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::cuda::morphology;
use crate::tensor::{DType, Tensor, elements};

/// The class of a point was evaluated.
const EVALUATED: u8 = 1;
/// The point is to be evaluated.
const DUE: u8 = 2;

/// Points (in C order) whose due ones are counted together: the grain of [`Lattice::due`].
pub const BLOCK: usize = 1024;

/// Stretches that a plan goes through; those between the first ones and the last are like the first.
pub const PLANNED_STRETCHES: usize = 64;

/// Longest axis.
const LONGEST: usize = 1 << 16;

/// Points, their classes, and which of them are evaluated or due.
#[derive(Debug)]
pub struct Lattice {
    shape: [usize; 3],
    classes: Tensor,
    status: Tensor,
    /// On a plan, which knows no classes: points that may yet become due. At worst that is all that are not evaluated.
    supposed: Cell<usize>,
}

impl Lattice {
    /// A lattice of background that nobody has evaluated.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis is empty or longer than 65,536; no memory.
    pub fn new(device: &Device, shape: [usize; 3]) -> Result<Self> {
        if shape.contains(&0) || shape.iter().any(|&side| side > LONGEST) || elements(&shape).is_none() {
            return Err(Error::shape("lattice", format!("{shape:?} points: each axis needs 1 to {LONGEST}")));
        }
        device.in_op("lattice", || {
            let zeros = || {
                let mut tensor = Tensor::empty(device, &shape, DType::U8, Role::Output)?;
                tensor.zero()?;
                Ok::<_, Error>(tensor)
            };
            let supposed = Cell::new(shape.iter().product());
            Ok(Self { shape, classes: zeros()?, status: zeros()?, supposed })
        })
    }

    /// Points along each axis.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Number of points.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The class of each point, on the host (background everywhere on a plan).
    ///
    /// # Errors
    /// What the driver says.
    pub fn to_classes(&self) -> Result<Vec<u8>> {
        self.classes.to_typed()
    }

    /// Whether each point was evaluated, on the host.
    ///
    /// # Errors
    /// What the driver says.
    pub fn to_evaluated(&self) -> Result<Vec<bool>> {
        Ok(self.status.to_typed::<u8>()?.into_iter().map(|status| status & EVALUATED != 0).collect())
    }

    /// Every point that is not evaluated becomes due.
    ///
    /// # Errors
    /// What the driver says.
    pub fn mark_all(&mut self) -> Result<()> {
        match self.status.device().clone().backend() {
            Backend::Cpu { pool, .. } => cpu::mark_all(pool, self.status.typed_mut()),
            Backend::Cuda(cuda) => cuda::mark_all(cuda, &mut self.status)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Points become due where `values` `[X, Y, Z]` exceed `threshold`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one value a point.
    pub fn mark_above(&mut self, values: &Tensor, threshold: f32) -> Result<()> {
        if values.len() != self.len() {
            let problem = format!("{:?} values for {:?} points", values.shape(), self.shape);
            return Err(Error::shape("lattice", problem));
        }
        match self.status.device().clone().backend() {
            Backend::Cpu { pool, .. } => cpu::mark_above(pool, values.data(), threshold, self.status.typed_mut()),
            Backend::Cuda(cuda) => cuda::mark_above(cuda, values, threshold, &mut self.status)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Unevaluated points become due whose 3³ neighbours, themselves included, do not all have one class.
    ///
    /// # Errors
    /// What the driver says.
    pub fn mark_mixed_neighbours(&mut self) -> Result<()> {
        match self.status.device().clone().backend() {
            Backend::Cpu { pool, .. } => {
                cpu::mark_mixed_neighbours(pool, self.shape, self.classes.typed(), self.status.typed_mut());
            }
            Backend::Cuda(cuda) => {
                cuda::mark_mixed_neighbours(cuda, self.shape, &self.classes, &mut self.status)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Unevaluated points become due that lie in a *mixed* cell or in one at most `margin` cells from it. Cells hold the
    /// points from one multiple of `side` to the next, both included; one is mixed if its points do not all have one class.
    ///
    /// # Errors
    /// No memory for a byte or two a cell.
    pub fn mark_mixed_cells(&mut self, side: usize, margin: usize) -> Result<()> {
        // More than the lattice has cells is all of them.
        let margin = margin.min(self.shape.into_iter().max().unwrap_or(0));
        let device = self.status.device().clone();
        let cells = self.shape.map(|points| (points - 1).div_ceil(side).max(1));
        device.in_op("lattice", || {
            let mut mixed = bytes(&device, cells)?;
            let mut scratch = bytes(&device, if margin > 0 { cells } else { [0; 3] })?;
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let mixed = mixed.typed_mut::<u8>();
                    cpu::mixed_cells(pool, self.shape, side, self.classes.typed(), cells, mixed);
                    if margin > 0 {
                        cpu::dilate(pool, cells, margin, mixed, scratch.typed_mut());
                    }
                    cpu::mark_cells(pool, self.shape, side, cells, mixed, self.status.typed_mut());
                }
                Backend::Cuda(cuda) => {
                    cuda::mixed_cells(cuda, self.shape, side, &self.classes, cells, &mut mixed)?;
                    if margin > 0 {
                        morphology::dilate(cuda, cells, margin, &mut mixed, &mut scratch)?;
                    }
                    cuda::mark_cells(cuda, self.shape, side, cells, &mixed, &mut self.status)?;
                }
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    /// Background points become due, evaluated or not, within `radius` points (in the largest of the three directions) of
    /// one that is not background: the official code's rule.
    ///
    /// # Errors
    /// No memory for two bytes a point.
    pub fn mark_dilated(&mut self, radius: usize) -> Result<()> {
        let device = self.status.device().clone();
        device.in_op("lattice", || {
            let (mut near, mut scratch) = (bytes(&device, self.shape)?, bytes(&device, self.shape)?);
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let (classes, near) = (self.classes.typed::<u8>(), near.typed_mut::<u8>());
                    near.iter_mut().zip(classes).for_each(|(near, &class)| *near = u8::from(class != 0));
                    cpu::dilate(pool, self.shape, radius, near, scratch.typed_mut());
                    cpu::mark_background(pool, near, classes, self.status.typed_mut());
                }
                Backend::Cuda(cuda) => {
                    cuda::nonzero(cuda, &self.classes, &mut near)?;
                    morphology::dilate(cuda, self.shape, radius, &mut near, &mut scratch)?;
                    cuda::mark_background(cuda, &near, &self.classes, &mut self.status)?;
                }
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    /// Stretches of points in C order that hold at most `most` due points each (`most` is raised to [`BLOCK`]), with the
    /// number of them; stretches without any are left out. On a plan all points are due once, see [`PLANNED_STRETCHES`].
    ///
    /// # Errors
    /// What the driver says.
    pub fn stretches(&self, most: usize) -> Result<Vec<(Range<usize>, usize)>> {
        let device = self.status.device();
        let mut scratch = device.in_op("lattice", || cuda::Scratch::new(device, self.len()))?;
        let counts = match device.backend() {
            Backend::Cpu { pool, .. } => cpu::count_due(pool, self.status.typed()),
            Backend::Cuda(cuda) => cuda::count_due(cuda, &self.status, &mut scratch)?,
            Backend::Plan { .. } => return Ok(planned_stretches(self.supposed.replace(0), most)),
        };
        let most = most.max(BLOCK);
        let mut stretches: Vec<(Range<usize>, usize)> = Vec::new();
        for (block, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let end = ((block + 1) * BLOCK).min(self.len());
            match stretches.last_mut() {
                Some((range, sum)) if *sum + count <= most => {
                    range.end = end;
                    *sum += count;
                }
                _ => stretches.push((block * BLOCK..end, count)),
            }
        }
        Ok(stretches)
    }

    /// Indices `[count, 3]` of the due points among `range` (in C order), whose number [`Lattice::stretches`] told.
    ///
    /// # Errors
    /// No memory.
    pub fn due(&self, range: Range<usize>, count: usize) -> Result<Tensor> {
        let device = self.status.device();
        device.in_op("lattice", || {
            let mut points = Tensor::empty(device, &[count, 3], DType::F32, Role::Data)?;
            let mut scratch = cuda::Scratch::new(device, range.len())?;
            match device.backend() {
                Backend::Cpu { .. } => {
                    let status = &self.status.typed::<u8>()[range.clone()];
                    cpu::due(self.shape, range.start, status, points.data_mut());
                }
                Backend::Cuda(cuda) => {
                    cuda::due(cuda, self.shape, range, &self.status, &mut scratch, &mut points)?;
                }
                Backend::Plan { .. } => {}
            }
            Ok(points)
        })
    }

    /// Enters the classes (`[count]` bytes) of the points at indices `[count, 3]`, which are then evaluated and no longer
    /// due.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers differ.
    pub fn write(&mut self, points: &Tensor, classes: &Tensor) -> Result<()> {
        if points.shape() != [classes.len(), 3] || classes.dtype() != DType::U8 {
            let problem = format!("classes {:?} for points {:?}", classes.shape(), points.shape());
            return Err(Error::shape("lattice", problem));
        }
        match self.status.device().clone().backend() {
            Backend::Cpu { .. } => {
                let own = (self.classes.typed_mut(), self.status.typed_mut());
                cpu::write(self.shape, points.data(), classes.typed(), own);
            }
            Backend::Cuda(cuda) => {
                cuda::write(cuda, self.shape, points, classes, [&mut self.classes, &mut self.status])?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// The lattice of `shape` that is `factor` times as fine: this one's points keep class and status, those between take
    /// the class of the nearest (of two equally near the later; background if not `fill`) and are not evaluated.
    ///
    /// # Errors
    /// [`Error::Shape`] if this lattice's points are not every `factor`-th of `shape`'s, the first included; no memory.
    pub fn refined(&self, factor: usize, shape: [usize; 3], fill: bool) -> Result<Self> {
        if factor == 0 || shape.map(|points| points.div_ceil(factor.max(1))) != self.shape {
            let problem = format!("{:?} points are not every {factor}th of {shape:?}", self.shape);
            return Err(Error::shape("lattice", problem));
        }
        let device = self.status.device();
        let mut fine = Self::new(device, shape)?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let own = (self.classes.typed(), self.status.typed());
                let finer = (fine.classes.typed_mut(), fine.status.typed_mut());
                cpu::refine(pool, (self.shape, own), factor, fill, (shape, finer));
            }
            Backend::Cuda(cuda) => {
                let finer = [&mut fine.classes, &mut fine.status];
                cuda::refine(cuda, (self.shape, [&self.classes, &self.status]), factor, fill, (shape, finer))?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(fine)
    }
}

/// The class of each row of `logits` `[points, outputs]`, one byte a point: with one output 1 if its sigmoid exceeds
/// `threshold`, else as [`class_of`].
///
/// # Errors
/// [`Error::Shape`] if a byte cannot name every class; no memory.
pub fn classify(logits: &Tensor, threshold: f32) -> Result<Tensor> {
    let (device, outputs) = (logits.device(), logits.channels());
    if outputs > 256 {
        return Err(Error::shape("classify", format!("{outputs} classes: at most 256 fit a byte")));
    }
    device.in_op("classify", || {
        let mut classes = Tensor::empty(device, &[logits.rows()], DType::U8, Role::Transient)?;
        match device.backend() {
            Backend::Cpu { pool, .. } => cpu::classify(pool, logits.data(), outputs, threshold, classes.typed_mut()),
            Backend::Cuda(cuda) => cuda::classify(cuda, logits, threshold, &mut classes)?,
            Backend::Plan { .. } => {}
        }
        Ok(classes)
    })
}

/// The class that the probabilities (or, if there are several, logits) of one point stand for: 1 if a single one exceeds
/// `threshold`, else the largest (the first of equals).
pub fn class_of(row: &[f32], threshold: f32) -> u8 {
    match row {
        [value] => u8::from(*value > threshold),
        _ => (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best }) as u8,
    }
}

/// The stretches of `points` that are all due, as [`Lattice::stretches`] has them: the first ones and the last.
fn planned_stretches(points: usize, most: usize) -> Vec<(Range<usize>, usize)> {
    let length = (most / BLOCK).max(1) * BLOCK;
    let count = points.div_ceil(length);
    (0..count)
        .filter(|&i| i + 1 < PLANNED_STRETCHES || i + 1 == count)
        .map(|i| i * length..((i + 1) * length).min(points))
        .map(|range| (range.clone(), range.len()))
        .collect()
}

/// Scratch of one byte an element.
fn bytes(device: &Device, shape: [usize; 3]) -> Result<Tensor> {
    Tensor::empty(device, &shape, DType::U8, Role::Workspace)
}
