//! Ten-point transforms of seven-voxel lines, many patches at a time.
//!
//! Every value is a vector whose lanes belong to different patches, so nothing is ever shuffled. Ten is 2·5 with coprime
//! factors, and Good's renumbering makes a ten-point transform out of five two-point and two five-point ones *without*
//! twiddle factors. Write `n = 5·n₁ + 2·n₂ (mod 10)` with `n₁ ∈ {0, 1}`, `n₂ ∈ 0..5` and `ω = e^(−2πi/10)`. Then
//! `ω^(n·k) = (−1)^(n₁·k)·(ω²)^(n₂·k)`, hence
//!
//! ```text
//! X[k] = Σ_{n₂} e^(−2πi·n₂·k/5) · ( x[2·n₂] ± x[2·n₂ + 5] )      indices mod 10, + for even k, − for odd k
//! ```
//!
//! so even bins are the five-point transform of the sums, odd bins that of the differences (bin `k` is its element
//! `k mod 5`). Inputs 7, 8 and 9 are zero, which leaves two additions of each kind. The inverse is the same with the
//! opposite sign in the exponent, and only its outputs 3 … 9 are wanted.
//!
//! There are no closures over vectors here and in the kernels: one that the compiler leaves out of line is compiled
//! without the instruction set and calls each vector instruction as a function.

use pulp::Simd;

/// Bins of a ten-point transform.
pub(super) const BINS: usize = 10;
/// Bins of a real ten-point transform that are not conjugates of others.
pub(super) const HALF: usize = BINS / 2 + 1;

/// cos(2π/5), cos(4π/5), sin(2π/5), sin(4π/5).
const COS1: f32 = 0.309_017;
const COS2: f32 = -0.809_017;
const SIN1: f32 = 0.951_056_5;
const SIN2: f32 = 0.587_785_25;

/// A vector of complex numbers: real and imaginary parts.
pub(super) type Complex<V> = [V; 2];

/// The transforms at one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Dft<S: Simd> {
    pub simd: S,
    zero: S::f32s,
    cos: [S::f32s; 2],
    sin: [S::f32s; 2],
}

impl<S: Simd> Dft<S> {
    #[inline(always)]
    pub fn new(simd: S) -> Self {
        Self {
            simd,
            zero: simd.splat_f32s(0.0),
            cos: [simd.splat_f32s(COS1), simd.splat_f32s(COS2)],
            sin: [simd.splat_f32s(SIN1), simd.splat_f32s(SIN2)],
        }
    }

    /// A vector of zeros.
    #[inline(always)]
    pub fn zero(self) -> S::f32s {
        self.zero
    }

    #[inline(always)]
    fn add(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.simd.add_f32s(a, b)
    }

    #[inline(always)]
    fn sub(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.simd.sub_f32s(a, b)
    }

    #[inline(always)]
    fn neg(self, a: S::f32s) -> S::f32s {
        self.simd.sub_f32s(self.zero, a)
    }

    /// `a + b`, complex.
    #[inline(always)]
    fn plus(self, a: Complex<S::f32s>, b: Complex<S::f32s>) -> Complex<S::f32s> {
        [self.add(a[0], b[0]), self.add(a[1], b[1])]
    }

    /// `a − b`, complex.
    #[inline(always)]
    fn minus(self, a: Complex<S::f32s>, b: Complex<S::f32s>) -> Complex<S::f32s> {
        [self.sub(a[0], b[0]), self.sub(a[1], b[1])]
    }

    /// `a*`.
    #[inline(always)]
    fn conjugate(self, a: Complex<S::f32s>) -> Complex<S::f32s> {
        [a[0], self.neg(a[1])]
    }

    /// `x·y + z`.
    #[inline(always)]
    fn fma(self, x: S::f32s, y: S::f32s, z: S::f32s) -> S::f32s {
        self.simd.mul_add_e_f32s(x, y, z)
    }

    /// `base + cos1·a + cos2·b` and `base + cos2·a + cos1·b`.
    #[inline(always)]
    fn cosines(self, base: S::f32s, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
        let [c1, c2] = self.cos;
        [self.fma(c1, a, self.fma(c2, b, base)), self.fma(c2, a, self.fma(c1, b, base))]
    }

    /// `sin1·a + sin2·b` and `sin2·a − sin1·b`.
    #[inline(always)]
    fn sines(self, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
        let [s1, s2] = self.sin;
        let (s2a, s2b) = (self.simd.mul_f32s(s2, a), self.simd.mul_f32s(s2, b));
        [self.fma(s1, a, s2b), self.simd.negate_mul_add_e_f32s(s1, b, s2a)]
    }

    /// Five-point transform `Σ x[n]·e^(∓2πi·n·k/5)`: upper sign (forward) or lower sign (inverse).
    #[inline(always)]
    fn five<const INVERSE: bool>(self, x: [Complex<S::f32s>; 5]) -> [Complex<S::f32s>; 5] {
        let (a, b) = (self.plus(x[1], x[4]), self.plus(x[2], x[3]));
        let (c, d) = (self.minus(x[1], x[4]), self.minus(x[2], x[3]));
        let ([re1, re2], [im1, im2]) = (self.cosines(x[0][0], a[0], b[0]), self.cosines(x[0][1], a[1], b[1]));
        let ([sre1, sre2], [sim1, sim2]) = (self.sines(c[0], d[0]), self.sines(c[1], d[1]));
        // m − i·s and m + i·s.
        let lower1 = [self.add(re1, sim1), self.sub(im1, sre1)];
        let upper1 = [self.sub(re1, sim1), self.add(im1, sre1)];
        let lower2 = [self.add(re2, sim2), self.sub(im2, sre2)];
        let upper2 = [self.sub(re2, sim2), self.add(im2, sre2)];
        let first = self.plus(x[0], self.plus(a, b));
        match INVERSE {
            false => [first, lower1, lower2, upper2, upper1],
            true => [first, upper1, upper2, lower2, lower1],
        }
    }

    /// Ten bins of a complex line of seven (and three zeros).
    #[inline(always)]
    pub fn forward(self, x: [Complex<S::f32s>; 7]) -> [Complex<S::f32s>; BINS] {
        let negative = [self.neg(x[3][0]), self.neg(x[3][1])];
        let even = self.five::<false>([self.plus(x[0], x[5]), x[2], x[4], self.plus(x[6], x[1]), x[3]]);
        let odd = self.five::<false>([self.minus(x[0], x[5]), x[2], x[4], self.minus(x[6], x[1]), negative]);
        [even[0], odd[1], even[2], odd[3], even[4], odd[0], even[1], odd[2], even[3], odd[4]]
    }

    /// Elements 3 … 9 of the inverse transform, times ten.
    #[inline(always)]
    pub fn inverse(self, x: [Complex<S::f32s>; BINS]) -> [Complex<S::f32s>; 7] {
        let even = self.five::<true>([
            self.plus(x[0], x[5]),
            self.plus(x[2], x[7]),
            self.plus(x[4], x[9]),
            self.plus(x[6], x[1]),
            self.plus(x[8], x[3]),
        ]);
        let odd = self.five::<true>([
            self.minus(x[0], x[5]),
            self.minus(x[2], x[7]),
            self.minus(x[4], x[9]),
            self.minus(x[6], x[1]),
            self.minus(x[8], x[3]),
        ]);
        [odd[3], even[4], odd[0], even[1], odd[2], even[3], odd[4]]
    }

    /// Bins 0, 1 and 2 of a real five-point transform (bin 0 is real).
    #[inline(always)]
    fn five_real(self, x: [S::f32s; 5]) -> [Complex<S::f32s>; 3] {
        let (a, b) = (self.add(x[1], x[4]), self.add(x[2], x[3]));
        let [re1, re2] = self.cosines(x[0], a, b);
        let [s1, s2] = self.sines(self.sub(x[1], x[4]), self.sub(x[2], x[3]));
        [[self.add(x[0], self.add(a, b)), self.zero], [re1, self.neg(s1)], [re2, self.neg(s2)]]
    }

    /// Bins 0 … 5 of a real line of seven (and three zeros).
    #[inline(always)]
    pub fn forward_real(self, x: [S::f32s; 7]) -> [Complex<S::f32s>; HALF] {
        let even = self.five_real([self.add(x[0], x[5]), x[2], x[4], self.add(x[6], x[1]), x[3]]);
        let odd = self.five_real([self.sub(x[0], x[5]), x[2], x[4], self.sub(x[6], x[1]), self.neg(x[3])]);
        [even[0], odd[1], even[2], self.conjugate(odd[2]), self.conjugate(even[1]), odd[0]]
    }

    /// Five-point inverse of the spectrum `[h₀, h₁, h₂, h₂*, h₁*]` of a real line, `h₀` real.
    #[inline(always)]
    fn five_to_real(self, h0: S::f32s, h1: Complex<S::f32s>, h2: Complex<S::f32s>) -> [S::f32s; 5] {
        let (h1, h2) = (self.plus(h1, h1), self.plus(h2, h2));
        let [m1, m2] = self.cosines(h0, h1[0], h2[0]);
        let [s1, s2] = self.sines(h1[1], h2[1]);
        [self.add(h0, self.add(h1[0], h2[0])), self.sub(m1, s1), self.sub(m2, s2), self.add(m2, s2), self.add(m1, s1)]
    }

    /// Elements 3 … 9 of the inverse of a real line's bins 0 … 5, times ten.
    #[inline(always)]
    pub fn inverse_real(self, x: [Complex<S::f32s>; HALF]) -> [S::f32s; 7] {
        // Bins 7 and 9 are the conjugates of 3 and 1.
        let (x7, x9) = (self.conjugate(x[3]), self.conjugate(x[1]));
        let even = self.five_to_real(self.add(x[0][0], x[5][0]), self.plus(x[2], x7), self.plus(x[4], x9));
        let odd = self.five_to_real(self.sub(x[0][0], x[5][0]), self.minus(x[2], x7), self.minus(x[4], x9));
        [odd[3], even[4], odd[0], even[1], odd[2], even[3], odd[4]]
    }
}
