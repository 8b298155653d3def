//! Wilcoxon's signed-rank test: whether the differences of pairs lie around zero.

use crate::order;

/// Pairs that differ up to which the distribution is computed exactly.
pub const EXACT: usize = 25;

/// Two-sided p of the hypothesis that the differences are distributed symmetrically around 0; `None` if no pair differs.
///
/// Pairs without a difference are left out, ties share their mean rank (Wilcoxon 1945). Up to [`EXACT`] pairs the
/// distribution over all signs is exact, ties included; above it is the normal one, with the variance corrected for ties
/// and without a correction for continuity, as in `scipy.stats.wilcoxon`.
pub fn p_value(differences: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0 && d.is_finite()).collect();
    order::by_key(&mut sorted, |difference| order::of_number(difference.abs()));
    if sorted.is_empty() {
        return None;
    }
    // Twice the ranks: those of ties are whole, too.
    let (mut ranks, mut ties) = (Vec::with_capacity(sorted.len()), 0.0);
    for group in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        let size = group.len() as f64;
        ties += size.powi(3) - size;
        ranks.extend(vec![2 * ranks.len() + group.len() + 1; group.len()]);
    }
    let positive: usize = sorted.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    match ranks.len() <= EXACT {
        true => Some(exact(&ranks, positive)),
        false => Some(normal(ranks.len() as f64, ties, positive as f64 / 2.0)),
    }
}

/// Twice the smaller tail of the sum of a random half of the ranks.
fn exact(ranks: &[usize], sum: usize) -> f64 {
    // Shares of the sign patterns by sum.
    let mut shares = vec![0.0; ranks.iter().sum::<usize>() + 1];
    shares[0] = 1.0;
    let mut most = 0;
    for &rank in ranks {
        most += rank;
        for at in (0..=most).rev() {
            let with = if at >= rank { shares[at - rank] } else { 0.0 };
            shares[at] = (shares[at] + with) / 2.0;
        }
    }
    let (below, above): (f64, f64) = (shares[..=sum].iter().sum(), shares[sum..].iter().sum());
    (2.0 * below.min(above)).min(1.0)
}

fn normal(pairs: f64, ties: f64, sum: f64) -> f64 {
    let mean = pairs * (pairs + 1.0) / 4.0;
    let variance = (pairs * (pairs + 1.0) * (2.0 * pairs + 1.0) - ties / 2.0) / 24.0;
    libm::erfc((sum - mean).abs() / (2.0 * variance).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// All sign patterns one by one.
    fn naive(differences: &[f64]) -> f64 {
        let d: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
        let rank = |x: f64| {
            let below = d.iter().filter(|y| y.abs() < x.abs()).count() as f64;
            let same = d.iter().filter(|y| y.abs() == x.abs()).count() as f64;
            below + (same + 1.0) / 2.0
        };
        let ranks: Vec<f64> = d.iter().map(|&x| rank(x)).collect();
        let sum_of = |pattern: u32| (0..d.len()).filter(|&i| pattern >> i & 1 == 1).map(|i| ranks[i]).sum::<f64>();
        let seen = d.iter().enumerate().fold(0, |pattern, (i, x)| pattern | u32::from(*x > 0.0) << i);
        let (all, sum) = (1u32 << d.len(), sum_of(seen));
        let share =
            |holds: &dyn Fn(f64) -> bool| (0..all).filter(|&p| holds(sum_of(p))).count() as f64 / f64::from(all);
        (2.0 * share(&|other| other <= sum).min(share(&|other| other >= sum))).min(1.0)
    }

    #[test]
    fn small_samples_are_exact() {
        let mut rng = Rng::new(4);
        for pairs in 1..=12 {
            for _ in 0..10 {
                // Quarters: with ties and zeros.
                let d: Vec<f64> = (0..pairs).map(|_| rng.below(9) as f64 / 4.0 - 1.0).collect();
                match p_value(&d) {
                    Some(p) => assert!((p - naive(&d)).abs() < 1e-12, "{d:?}: {p} {}", naive(&d)),
                    None => assert!(d.iter().all(|d| *d == 0.0)),
                }
            }
        }
        assert_eq!(p_value(&[]), None);
        assert_eq!(p_value(&[0.0; 40]), None);
    }

    /// ```python
    /// import scipy.stats as s  # 1.17.1
    /// s.wilcoxon([i * (-1 if i % 3 == 0 else 1) for i in range(1, 21)]).pvalue              # exact, no ties
    /// s.wilcoxon([(i % 7 + 1) * (-1 if i % 3 == 0 else 1) for i in range(40)], method="asymptotic").pvalue
    /// s.wilcoxon([(i + 1) * (-1 if i % 5 == 0 else 1) for i in range(200)], method="asymptotic").pvalue
    /// ```
    #[test]
    fn values_of_scipy() {
        let signed = |value: usize, negative: bool| if negative { -(value as f64) } else { value as f64 };
        let first: Vec<f64> = (1..=20).map(|i| signed(i, i % 3 == 0)).collect();
        let ties: Vec<f64> = (0..40).map(|i| signed(i % 7 + 1, i % 3 == 0)).collect();
        let long: Vec<f64> = (0..200).map(|i| signed(i + 1, i % 5 == 0)).collect();
        for (d, told) in [(first, SCIPY[0]), (ties, SCIPY[1]), (long, SCIPY[2])] {
            let p = p_value(&d).unwrap();
            // Sums of a few hundred numbers, and an error function good to a few roundings.
            assert!((p - told).abs() < 1e-10 * told, "{p} {told}");
        }
    }

    const SCIPY: [f64; 3] = [0.1230926513671875, 0.1278669508312702, 8.970451208151827e-14];
}
