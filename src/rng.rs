//! The crate's one source of randomness: Philox4x32-10, a counter-based generator.
//!
//! A draw is a pure function of (seed, stream, position), so that any part of a sequence can be computed anywhere, on any
//! thread or device, without computing what comes before it, and the whole state is three integers. Weight initialisation,
//! dropout, point sampling and augmentation each take their own named stream of one seed: drawing more in one never
//! changes another.
//!
//! Source: Salmon, Moraes, Dror, Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3* (SC 2011).

use std::collections::HashSet;

/// A stream of random numbers.
///
/// ```
/// let mut rng = ossnet::rng::Rng::named(7, "dropout");
/// let first = rng.next_u32();
/// let resumed = ossnet::rng::Rng::from_state([rng.state()[0], rng.state()[1], 0]).next_u32();
/// assert_eq!(first, resumed);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    seed: u64,
    stream: u64,
    /// 32-bit words drawn so far.
    position: u64,
    /// The block that `position` points into, if `position % 4 != 0`.
    block: [u32; 4],
}

impl Rng {
    /// Stream 0 of `seed`.
    pub fn new(seed: u64) -> Self {
        Self::from_state([seed, 0, 0])
    }

    /// The stream of `seed` that belongs to `name` (FNV-1a of its bytes).
    pub fn named(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3));
        Self::from_state([seed, hash, 0])
    }

    /// A stream of its own for part `index` of this stream (a case of an epoch, say). Does not advance `self`.
    pub fn split(&self, index: u64) -> Self {
        let [a, b, c, d] = philox(self.seed, [self.stream, index ^ 0x9e37_79b9_7f4a_7c15]);
        Self::from_state([a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32, 0])
    }

    /// Seed, stream and position, for [`Rng::from_state`].
    pub fn state(&self) -> [u64; 3] {
        [self.seed, self.stream, self.position]
    }

    /// Continues where [`Rng::state`] was taken.
    pub fn from_state([seed, stream, position]: [u64; 3]) -> Self {
        Self { seed, stream, position, block: philox(seed, [position / 4, stream]) }
    }

    /// The word at `position` of a stream, computed directly.
    pub fn word_at(seed: u64, stream: u64, position: u64) -> u32 {
        philox(seed, [position / 4, stream])[(position % 4) as usize]
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        let lane = (self.position % 4) as usize;
        if lane == 0 {
            self.block = philox(self.seed, [self.position / 4, self.stream]);
        }
        self.position = self.position.wrapping_add(1);
        self.block[lane]
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.next_u32() as u64 | (self.next_u32() as u64) << 32
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻²⁴ (every value is exact in f32).
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in `[low, high)` up to rounding.
    pub fn uniform_in(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.uniform() < probability
    }

    /// Standard normal: the first of [`Rng::normal_pair`].
    pub fn normal(&mut self) -> f32 {
        self.normal_pair()[0]
    }

    /// Two independent standard normals (Box–Muller, in f64) from two words; at most 6.8 in magnitude.
    pub fn normal_pair(&mut self) -> [f32; 2] {
        // Half a step away from 0 so that the logarithm is finite.
        let uniform = (self.next_u32() as f64 + 0.5) * 2f64.powi(-32);
        let radius = (-2.0 * uniform.ln()).sqrt();
        let (sin, cos) = (self.next_u32() as f64 * 2f64.powi(-32) * std::f64::consts::TAU).sin_cos();
        [(radius * cos) as f32, (radius * sin) as f32]
    }

    /// A whole number in `0..bound`, each equally likely (Lemire's multiplication with rejection).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number lies below 0");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = self.next_u64() as u128 * bound as u128;
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Puts `items` in random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// `count` different numbers of `0..bound`, every subset equally likely (Floyd); all of them, in order, if
    /// `count >= bound`.
    pub fn choose(&mut self, count: usize, bound: usize) -> Vec<usize> {
        if count >= bound {
            return (0..bound).collect();
        }
        let mut seen = HashSet::with_capacity(count);
        (bound - count..bound)
            .map(|top| {
                let drawn = self.below(top as u64 + 1) as usize;
                let chosen = if seen.contains(&drawn) { top } else { drawn };
                seen.insert(chosen);
                chosen
            })
            .collect()
    }
}

/// Ten rounds of Philox4x32 on a 128-bit counter under a 64-bit key.
fn philox(key: u64, counter: [u64; 2]) -> [u32; 4] {
    let mut c = [counter[0] as u32, (counter[0] >> 32) as u32, counter[1] as u32, (counter[1] >> 32) as u32];
    let mut k = [key as u32, (key >> 32) as u32];
    for _ in 0..10 {
        let p0 = 0xD251_1F53_u64 * c[0] as u64;
        let p1 = 0xCD9E_8D57_u64 * c[2] as u64;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox(0, [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox(u64::MAX, [u64::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let counter = [0x85a308d3_243f6a88, 0x03707344_13198a2e];
        assert_eq!(philox(0x299f31d0_a4093822, counter), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn resuming_at_any_position_continues_the_sequence() {
        let mut whole = Rng::named(11, "weights");
        let words: Vec<u32> = (0..23).map(|_| whole.next_u32()).collect();
        for position in 0..23u64 {
            let [seed, stream, _] = whole.state();
            assert_eq!(Rng::from_state([seed, stream, position]).next_u32(), words[position as usize]);
            assert_eq!(Rng::word_at(seed, stream, position), words[position as usize]);
        }
        assert_eq!(whole.state()[2], 23);
    }

    #[test]
    fn streams_and_splits_differ() {
        let mut first = [
            Rng::new(1),
            Rng::new(2),
            Rng::named(1, "a"),
            Rng::named(1, "b"),
            Rng::new(1).split(0),
            Rng::new(1).split(1),
        ]
        .map(|mut rng| rng.next_u64());
        first.sort_unstable();
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
    }

    /// With 2^16 draws the mean of U(0,1) has standard deviation 0.2887/256 = 0.00113 and that of N(0,1) 0.0039; the
    /// bounds are five of them.
    #[test]
    fn moments_are_right() {
        let n = 1 << 16;
        let mut rng = Rng::new(3);
        let uniform: Vec<f64> = (0..n).map(|_| rng.uniform() as f64).collect();
        assert!(uniform.iter().all(|u| (0.0..1.0).contains(u)));
        assert!((uniform.iter().sum::<f64>() / n as f64 - 0.5).abs() < 0.0057);
        let normal: Vec<f64> = (0..n / 2).flat_map(|_| rng.normal_pair()).map(f64::from).collect();
        assert!((normal.iter().sum::<f64>() / n as f64).abs() < 0.0196);
        // The variance estimate has standard deviation sqrt(2/n) = 0.0055.
        assert!((normal.iter().map(|z| z * z).sum::<f64>() / n as f64 - 1.0).abs() < 0.028);
        // The two of a pair are uncorrelated: their mean product has standard deviation sqrt(2/n).
        assert!((normal.chunks(2).map(|z| z[0] * z[1]).sum::<f64>() / (n / 2) as f64).abs() < 0.028);
    }

    /// 60,000 draws of 0..6: each count is 10,000 with standard deviation 91.3; the bound is five of them.
    #[test]
    fn whole_numbers_have_no_bias() {
        let mut rng = Rng::new(4);
        let mut counts = [0i64; 6];
        (0..60_000).for_each(|_| counts[rng.below(6) as usize] += 1);
        assert!(counts.iter().all(|c| (c - 10_000).abs() < 457), "{counts:?}");
    }

    #[test]
    fn shuffle_and_choose_are_permutations_and_subsets() {
        let mut rng = Rng::new(5);
        let mut items: Vec<usize> = (0..100).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());

        let chosen = rng.choose(30, 50);
        assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), 30);
        assert!(chosen.iter().all(|&c| c < 50));
        assert_eq!(rng.choose(9, 4), [0, 1, 2, 3]);
    }
}
