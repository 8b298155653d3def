//! How figures are written: the same way on the terminal and on the page.

/// What stands where a figure is missing or not finite.
pub(super) const MISSING: &str = "–";

/// Bytes as a bare number of MiB with one decimal, for columns that name the unit: `41.2`, `< 0.1`.
pub fn mib(bytes: u64) -> String {
    match bytes as f64 / (1 << 20) as f64 {
        0.0 => "0".into(),
        value if value < 0.1 => "< 0.1".into(),
        value => format!("{value:.1}"),
    }
}

/// A duration with its unit: `3.2 ms`, `0.46 s`, `4 min 12 s`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => MISSING.into(),
        s if s < 0.0995 => format!("{:.1} ms", s * 1e3),
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 119.95 => format!("{s:.1} s"),
        s => {
            let whole = s.round() as u64;
            match (whole / 3600, whole / 60 % 60, whole % 60) {
                (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
                (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
            }
        }
    }
}

/// The unit of a column of durations: one for all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TimeUnit {
    Milliseconds,
    Seconds,
    Minutes,
}

impl TimeUnit {
    /// The one in which the longest of `seconds` is below a thousand, or minutes.
    pub(super) fn of(seconds: impl Iterator<Item = f64>) -> Self {
        match seconds.filter(|seconds| seconds.is_finite()).fold(0.0, f64::max) {
            longest if longest < 0.9995 => Self::Milliseconds,
            longest if longest < 999.5 => Self::Seconds,
            _ => Self::Minutes,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Minutes => "min",
        }
    }

    /// A duration in this unit, with one decimal.
    pub(super) fn figure(self, seconds: f64) -> String {
        let factor = match self {
            Self::Milliseconds => 1e3,
            Self::Seconds => 1.0,
            Self::Minutes => 1.0 / 60.0,
        };
        if seconds.is_finite() && seconds >= 0.0 { format!("{:.1}", seconds * factor) } else { MISSING.into() }
    }
}

/// A score between 0 and 1 with three decimals.
pub(super) fn score(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { MISSING.into() }
}

/// `1 point`, `16,384 points`.
pub fn counted(value: u64, what: &str) -> String {
    format!("{} {what}{}", count(value), if value == 1 { "" } else { "s" })
}

/// A count with commas between groups of three digits.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number as short as SVG needs it: two decimals at most, no trailing zeros.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_mebibytes() {
        assert_eq!([0, 100, 32_768, 1 << 20, 43_200_000].map(mib), ["0", "< 0.1", "< 0.1", "1.0", "41.2"]);
    }

    #[test]
    fn a_column_of_durations_has_one_unit() {
        let unit = |seconds: &[f64]| TimeUnit::of(seconds.iter().copied());
        assert_eq!(unit(&[0.03, f64::NAN, 0.2]), TimeUnit::Milliseconds);
        assert_eq!([0.03, 0.2, f64::NAN].map(|s| unit(&[0.03, 0.2]).figure(s)), ["30.0", "200.0", MISSING]);
        assert_eq!([0.03, 12.34].map(|s| unit(&[0.03, 12.34]).figure(s)), ["0.0", "12.3"]);
        assert_eq!((unit(&[5400.0]).name(), unit(&[5400.0]).figure(5400.0).as_str()), ("min", "90.0"));
    }

    #[test]
    fn durations_scores_and_counts() {
        let durations = [0.0032, 0.46, 12.34, 252.0, 7260.0, f64::NAN, -1.0].map(duration);
        assert_eq!(durations, ["3.2 ms", "0.46 s", "12.3 s", "4 min 12 s", "2 h 01 min", MISSING, MISSING]);
        assert_eq!([0.9, f64::NAN, f64::INFINITY].map(score), ["0.900", MISSING, MISSING]);
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1.0, -0.001, 2.345, 10.0, 100.5].map(short), ["1", "0", "2.35", "10", "100.5"]);
    }
}
