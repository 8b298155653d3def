//! Means with confidence intervals.

use serde::Serialize;

/// Mean of some scores and the half width of its 95 % confidence interval (Student's t over the cases).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Scores that are defined; the others do not count.
    pub count: usize,
    /// Their mean; `None` without any.
    pub mean: Option<f64>,
    /// Half the width of the interval around the mean; `None` for fewer than two scores.
    pub half_width: Option<f64>,
}

impl Summary {
    /// Of the finite ones of `scores`.
    pub fn of(scores: impl IntoIterator<Item = f64>) -> Self {
        let scores: Vec<f64> = scores.into_iter().filter(|score| score.is_finite()).collect();
        let count = scores.len();
        let mean = scores.iter().sum::<f64>() / count as f64;
        let square = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>();
        let half_width = (count > 1).then(|| {
            let deviation = (square / (count - 1) as f64).sqrt();
            student(count - 1) * deviation / (count as f64).sqrt()
        });
        Self { count, mean: (count > 0).then_some(mean), half_width }
    }
}

/// The 97.5 % point of Student's t with `freedom` degrees of freedom: from the table up to 30, beyond by the
/// Cornish-Fisher expansion around the normal distribution's (error below 1e-5 there).
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
        2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518,
        2.0484, 2.0452, 2.0423,
    ];
    const Z: f64 = 1.959_963_985;
    match TABLE.get(freedom.wrapping_sub(1)) {
        Some(value) => *value,
        None => {
            let n = freedom as f64;
            let terms = [
                (Z.powi(3) + Z) / 4.0,
                (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0,
                (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0,
            ];
            Z + terms[0] / n + terms[1] / n.powi(2) + terms[2] / n.powi(3)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_by_hand() {
        // Mean 2, deviation 1, t(2) = 4.3027.
        let summary = Summary::of([1.0, 2.0, 3.0, f64::NAN, f64::INFINITY]);
        assert_eq!((summary.count, summary.mean), (3, Some(2.0)));
        assert!((summary.half_width.unwrap() - 4.3027 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of([0.5]), Summary { count: 1, mean: Some(0.5), half_width: None });
        assert_eq!(Summary::of([]), Summary { count: 0, mean: None, half_width: None });
    }

    /// Published quantiles: t(40) 2.0211, t(60) 2.0003, t(120) 1.9799; the expansion joins the table smoothly.
    #[test]
    fn quantiles_beyond_the_table() {
        for (freedom, published) in [(40, 2.0211), (60, 2.0003), (120, 1.9799), (100_000, 1.9600)] {
            // The published figures are rounded to four decimals.
            assert!((student(freedom) - published).abs() < 6e-5, "{freedom}");
        }
        assert!(student(31) < student(30) && student(30) - student(31) < 0.003);
    }
}
