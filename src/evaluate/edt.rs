//! Exact Euclidean distance transform with a spacing: the squared distance in mm² from every point of a grid to the nearest
//! of some.
//!
//! One pass an axis; each takes the lower envelope of parabolas (Felzenszwalb & Huttenlocher, *Distance Transforms of
//! Sampled Functions*, 2012). O(points).

/// Squared distances `[shape]` to the nearest point for which `is_source` holds; infinite without any.
///
/// # Panics
/// If `is_source.len()` is not the product of `shape`.
pub fn squared_distances(is_source: &[bool], shape: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    assert_eq!(is_source.len(), shape.iter().product::<usize>(), "grid of {shape:?}");
    let mut distances: Vec<f64> = is_source.iter().map(|&source| if source { 0.0 } else { f64::INFINITY }).collect();
    let longest = shape.into_iter().max().unwrap_or(0);
    let (mut line, mut envelope) = (vec![0.0; longest], Envelope::new(longest));
    for axis in 0..3 {
        let (length, stride) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        for start in (0..distances.len()).filter(|place| place / stride % length == 0) {
            let line = &mut line[..length];
            line.iter_mut().enumerate().for_each(|(i, value)| *value = distances[start + i * stride]);
            envelope.build(line, spacing[axis]);
            envelope.read(line, spacing[axis], |i, value| distances[start + i * stride] = value);
        }
    }
    distances
}

/// Parabolas `line[k] + (x − k·spacing)²` that are lowest somewhere.
struct Envelope {
    /// Their positions.
    roots: Vec<usize>,
    /// Where each begins to be the lowest.
    starts: Vec<f64>,
}

impl Envelope {
    fn new(longest: usize) -> Self {
        Self { roots: Vec::with_capacity(longest), starts: Vec::with_capacity(longest) }
    }

    fn build(&mut self, line: &[f64], spacing: f64) {
        self.roots.clear();
        self.starts.clear();
        for (k, &height) in line.iter().enumerate().filter(|(_, height)| height.is_finite()) {
            let place = k as f64 * spacing;
            let mut start = f64::NEG_INFINITY;
            while let (Some(&root), Some(&former)) = (self.roots.last(), self.starts.last()) {
                let other = root as f64 * spacing;
                start = ((height + place * place) - (line[root] + other * other)) / (2.0 * (place - other));
                if start > former {
                    break;
                }
                self.roots.pop();
                self.starts.pop();
                start = f64::NEG_INFINITY;
            }
            self.roots.push(k);
            self.starts.push(start);
        }
    }

    fn read(&self, line: &[f64], spacing: f64, mut put: impl FnMut(usize, f64)) {
        let mut which = 0;
        for i in 0..line.len() {
            let Some(_) = self.roots.first() else { return put_all(line.len(), put) };
            let place = i as f64 * spacing;
            while self.starts.get(which + 1).is_some_and(|&start| start <= place) {
                which += 1;
            }
            let root = self.roots[which];
            let step = place - root as f64 * spacing;
            put(i, line[root] + step * step);
        }
    }
}

/// A line without sources.
fn put_all(length: usize, mut put: impl FnMut(usize, f64)) {
    (0..length).for_each(|i| put(i, f64::INFINITY));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn agrees_with_all_pairs() {
        let mut rng = Rng::new(3);
        for (shape, spacing, share) in
            [([6, 5, 7], [1.0, 1.0, 1.0], 0.1), ([1, 9, 4], [0.7, 1.9, 2.5], 0.2), ([5, 5, 5], [3.0, 0.2, 1.0], 0.5)]
        {
            let sources: Vec<bool> = (0..shape.iter().product()).map(|_| rng.uniform() < share).collect();
            let place = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            let naive = |i: usize| {
                let square = |j: usize| (0..3).map(move |k| (place(i)[k] as f64 - place(j)[k] as f64) * spacing[k]);
                let distances = (0..sources.len()).filter(|&j| sources[j]);
                distances.map(|j| square(j).map(|d| d * d).sum::<f64>()).fold(f64::INFINITY, f64::min)
            };
            for (i, found) in squared_distances(&sources, shape, spacing).into_iter().enumerate() {
                // A few roundings of numbers below 1000.
                assert!((found - naive(i)).abs() < 1e-11 || found == naive(i), "{found} {}", naive(i));
            }
        }
        assert!(squared_distances(&[false; 8], [2; 3], [1.0; 3]).iter().all(|d| d.is_infinite()));
    }
}
