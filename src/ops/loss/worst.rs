//! The worst elements of a loss: bootstrapping keeps the `k` largest and forgets the rest.

use crate::device::cpu::Pool;
use crate::ops::PIECE;

/// The `count` largest of a list, by a threshold: all above it, and of those equal to it the first `ties`.
pub(super) struct Worst {
    threshold: f32,
    /// Sum of the chosen elements.
    pub(super) sum: f64,
    ties: usize,
}

/// How many of `len` elements a fraction keeps: rounded down, one at least, as the reference counts.
pub(super) fn kept(fraction: f64, len: usize) -> usize {
    ((fraction * len as f64) as usize).clamp(1, len.max(1))
}

impl Worst {
    /// Finds the `count` (at least 1) largest elements of `losses`, which it reorders. NaN counts as largest.
    pub(super) fn of(losses: &mut [f32], count: usize) -> Self {
        let (above, &mut threshold, _) = losses.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
        let ties = 1 + above.iter().filter(|loss| loss.total_cmp(&threshold).is_eq()).count();
        let sum = losses[..count].iter().map(|&loss| f64::from(loss)).sum();
        Self { threshold, sum, ties }
    }

    /// Calls `visit(i, chosen)` for each element `0..len` in pieces, where `loss(i)` is its loss.
    ///
    /// Ties are chosen in the order of the elements: each piece first counts its own.
    pub(super) fn choose<'a>(
        &'a self,
        pool: &Pool,
        len: usize,
        loss: impl Fn(usize) -> f32 + Sync + Send + 'a,
    ) -> impl Fn(usize) -> Chooser<'a> {
        let count = |piece: usize| {
            let range = piece * PIECE..len.min((piece + 1) * PIECE);
            range.filter(|&i| loss(i).total_cmp(&self.threshold).is_eq()).count()
        };
        let mut before = pool.map(len.div_ceil(PIECE), count);
        let mut total = 0;
        before.iter_mut().for_each(|ties| (*ties, total) = (total, total + *ties));
        move |piece| Chooser { worst: self, ties: self.ties.saturating_sub(before[piece]) }
    }
}

/// Goes through one piece of [`crate::ops::PIECE`] elements in order.
pub(super) struct Chooser<'a> {
    worst: &'a Worst,
    ties: usize,
}

impl Chooser<'_> {
    /// True if the next element, whose loss is `loss`, is among the worst.
    pub(super) fn takes(&mut self, loss: f32) -> bool {
        match loss.total_cmp(&self.worst.threshold) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => {
                let taken = self.ties > 0;
                self.ties = self.ties.saturating_sub(1);
                taken
            }
        }
    }
}
