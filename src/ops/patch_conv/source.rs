//! Where the convolution's patches come from.

use std::ops::Range;

use super::{Dims, PATCH};
use crate::ops::patch_sample::{Samples, VoxelSource};

/// Patches `[points, channels, 343]`, or a recipe for them. A volume's patches are cut group by group while they are
/// needed, so those of all points never exist at once.
pub(super) enum Source<'a, V: ?Sized = [f32]> {
    /// Cut from volumes.
    Volume(Samples<'a, V>),
    /// Given.
    Patches(&'a [f32]),
}

impl<V: VoxelSource + ?Sized> Source<'_, V> {
    /// Floats of scratch that [`Source::load`] needs.
    pub fn scratch(&self) -> usize {
        match self {
            Self::Volume(samples) => Samples::<V>::scratch(samples.grid),
            Self::Patches(_) => 0,
        }
    }

    /// The patches of `points` one after the other, followed by zeros up to a whole group of `group` patches. Given
    /// patches of a whole group are used in place; others are put into `staging`.
    #[inline(always)]
    pub fn load<'b>(
        &'b self,
        points: Range<usize>,
        group: usize,
        dims: Dims,
        staging: &'b mut [f32],
        scratch: &mut [f32],
    ) -> &'b [f32] {
        let len = dims.inputs * PATCH;
        let staging = &mut staging[..match self {
            Self::Patches(_) if points.len() == group => 0,
            _ => group * len,
        }];
        match self {
            Self::Patches(patches) => {
                let patches = &patches[points.start * len..points.end * len];
                if points.len() == group {
                    return patches;
                }
                staging[..patches.len()].copy_from_slice(patches);
            }
            Self::Volume(samples) => {
                for (point, patch) in points.clone().zip(staging.chunks_exact_mut(len)) {
                    samples.patch(point, patch, scratch);
                }
            }
        }
        staging[points.len() * len..].fill(0.0);
        staging
    }
}
