//! Which points of a grid are worth asking: hierarchical inference.
//!
//! A *search* goes through lattices of growing density, for example every 4th, every 2nd and every point. The coarsest is
//! evaluated as a whole (or where the encoder's low-resolution segmentation tells, [`Search::seeded`]); what follows depends
//! on the rule. `classes` is what is known or supposed of each point of the present lattice.
//!
//! # [`SearchRule::Mixed`]
//!
//! ```text
//! classes ← those of the nearest coarser point
//! unless the lattice is the last, until nothing is due:
//!     due ← unevaluated points of cells between coarser points that do not have one class, and of `margin` cells around
//! until nothing is due:
//!     due ← unevaluated points whose 3³ neighbours do not have one class
//! ```
//!
//! Answers change `classes`, so surfaces are followed wherever they lead, and a coarse answer that its neighbours do not
//! share is looked at from all sides. When nothing is due, each point whose 3³ neighbourhood is not of one class *has been
//! evaluated*: that is the loop's own condition. What can be missed is a structure (or hole) that no evaluated point
//! touches, smaller than the coarsest lattice's mesh.
//!
//! The margin, one cell, stands for all 26 neighbours of a mixed cell. The last lattice does without: there the second loop
//! alone gives the property above, and with a margin the rule would evaluate more points than the official one
//! (`docs/inference.md` has the figures).
//!
//! # [`SearchRule::Reference`]
//!
//! The official code's: at stride `s` all background points become due within `(3^s − 1)/2` voxels of a point that is not
//! background, interiors included. Nothing that was found is looked at again, and nothing farther than that is found.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::lattice::Lattice;
use crate::tensor::Tensor;

/// How the points of the next lattice are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchRule {
    /// Where the classes of neighbours differ, until closed.
    Mixed {
        /// Cells around a mixed one that are evaluated too, on all lattices but the last.
        margin: usize,
    },
    /// Everything near what was found, as in the official code.
    Reference,
}

/// A hierarchical evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Strides of the lattices, each a multiple of the next, the last 1.
    pub stages: Vec<usize>,
    /// How points are chosen.
    pub rule: SearchRule,
    /// Begin where the encoder's low-resolution segmentation finds something, instead of everywhere.
    pub seeded: bool,
}

impl Search {
    /// Every point is evaluated.
    pub fn dense() -> Self {
        Self { stages: vec![1], rule: SearchRule::Mixed { margin: 1 }, seeded: false }
    }

    /// The official stages 4, 2, 1 under the default rule.
    pub fn hierarchical() -> Self {
        Self { stages: vec![4, 2, 1], ..Self::dense() }
    }

    /// The official stages and rule.
    pub fn reference() -> Self {
        Self { rule: SearchRule::Reference, ..Self::hierarchical() }
    }

    /// True if every point is evaluated.
    pub fn is_dense(&self) -> bool {
        self.stages == [1] && !self.seeded
    }

    /// Checks the stages.
    ///
    /// # Errors
    /// [`Error::Usage`] that states the rules.
    pub fn check(&self) -> Result<()> {
        let falls = |pair: &[usize]| pair[1] > 0 && pair[0] > pair[1] && pair[0].is_multiple_of(pair[1]);
        let fits = self.stages.last() == Some(&1) && self.stages.windows(2).all(falls);
        if fits && self.stages[0] <= 1024 {
            return Ok(());
        }
        let stages: Vec<String> = self.stages.iter().map(usize::to_string).collect();
        Err(Error::Usage(format!(
            "stages {}: each must be a multiple of the next, the first at most 1024, the last 1; for example 4,2,1",
            stages.join(",")
        )))
    }

    /// Runs the search over `shape` points. `begin` marks the due points of the coarsest lattice; `answer` is given its
    /// present lattice's stride and indices `[points, 3]`, at most `most` of them, and tells the class of each, a byte a
    /// point. Returns the last lattice and the number of points evaluated at each stage.
    ///
    /// # Errors
    /// Stages that do not fit, what `begin` and `answer` report, or no memory.
    pub fn run(
        &self,
        device: &Device,
        shape: [usize; 3],
        most: usize,
        begin: impl FnOnce(&mut Lattice) -> Result<()>,
        mut answer: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<(Lattice, Vec<u64>)> {
        self.check()?;
        let strided = |stride: usize| shape.map(|points| points.div_ceil(stride));
        let mut lattice = Lattice::new(device, strided(self.stages[0]))?;
        let mut points = vec![0; self.stages.len()];
        let mut settle = |lattice: &mut Lattice, stage: usize| {
            let mut evaluated = 0;
            for (range, count) in lattice.stretches(most)? {
                let indices = lattice.due(range, count)?;
                let classes = answer(self.stages[stage], &indices)?;
                lattice.write(&indices, &classes)?;
                evaluated += count as u64;
            }
            points[stage] += evaluated;
            Ok::<_, Error>(evaluated > 0)
        };
        begin(&mut lattice)?;
        settle(&mut lattice, 0)?;
        for stage in 0..self.stages.len() {
            let stride = self.stages[stage];
            let factor = if stage == 0 { 1 } else { self.stages[stage - 1] / stride };
            match self.rule {
                SearchRule::Mixed { margin } => {
                    if stage > 0 {
                        lattice = lattice.refined(factor, strided(stride), true)?;
                    }
                    if stage > 0 && stride > 1 {
                        lattice.mark_mixed_cells(factor, margin)?;
                        while settle(&mut lattice, stage)? {
                            lattice.mark_mixed_cells(factor, margin)?;
                        }
                    }
                    lattice.mark_mixed_neighbours()?;
                    while settle(&mut lattice, stage)? {
                        lattice.mark_mixed_neighbours()?;
                    }
                }
                SearchRule::Reference if stage > 0 => {
                    lattice = lattice.refined(factor, strided(stride), false)?;
                    lattice.mark_dilated(reference_radius(stride))?;
                    settle(&mut lattice, stage)?;
                }
                SearchRule::Reference => {}
            }
        }
        Ok((lattice, points))
    }
}

/// How far, in points of the lattice of `stride`, a cube of `3^stride` voxels reaches.
fn reference_radius(stride: usize) -> usize {
    let side = u32::try_from(stride).ok().and_then(|stride| 3usize.checked_pow(stride)).unwrap_or(usize::MAX);
    ((side - 1) / 2 / stride).min(1 << 16)
}
