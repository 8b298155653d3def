//! The worst elements of a loss: bootstrapping keeps the `k` largest and forgets the rest.

use std::cmp::Ordering;

use crate::device::cpu::Pool;
use crate::ops::PIECE;

/// The `count` largest of a list, by a threshold: all above it, and of those equal to it the first `ties`.
pub(super) struct TopK {
    threshold: f32,
    /// Sum of the chosen elements.
    pub(super) sum: f64,
    ties: usize,
}

/// How many of `len` elements a fraction keeps: rounded down, one at least, as the reference counts.
pub(super) fn kept(fraction: f64, len: usize) -> usize {
    ((fraction * len as f64) as usize).clamp(1, len.max(1))
}

/// The order of losses: by value, −0 before 0, NaN of either sign last.
fn compare(a: f32, b: f32) -> Ordering {
    let one_nan = |loss: f32| if loss.is_nan() { f32::NAN.abs() } else { loss };
    one_nan(a).total_cmp(&one_nan(b))
}

impl TopK {
    /// Finds the `count` (at least 1) largest elements of `losses`, which it reorders. NaN counts as largest.
    pub(super) fn of(losses: &mut [f32], count: usize) -> Self {
        let (above, &mut threshold, _) = losses.select_nth_unstable_by(count - 1, |a, b| compare(*b, *a));
        let ties = 1 + above.iter().filter(|&&loss| compare(loss, threshold).is_eq()).count();
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
            range.filter(|&i| compare(loss(i), self.threshold).is_eq()).count()
        };
        let mut before = pool.map(len.div_ceil(PIECE), count);
        let mut total = 0;
        before.iter_mut().for_each(|ties| (*ties, total) = (total, total + *ties));
        move |piece| Chooser { worst: self, ties: self.ties.saturating_sub(before[piece]) }
    }
}

/// Goes through one piece of [`crate::ops::PIECE`] elements in order.
pub(super) struct Chooser<'a> {
    worst: &'a TopK,
    ties: usize,
}

impl Chooser<'_> {
    /// True if the next element, whose loss is `loss`, is among the worst.
    pub(super) fn takes(&mut self, loss: f32) -> bool {
        match compare(loss, self.worst.threshold) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => {
                let taken = self.ties > 0;
                self.ties = self.ties.saturating_sub(1);
                taken
            }
        }
    }
}
