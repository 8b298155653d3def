//! Rounding to narrower floats, in any direction, and widening from them.
//!
//! Everything goes through f64 rounded *to odd*: where a value does not fit, the last bit is made odd, so that a second
//! rounding to 51 bits or fewer, in whatever direction, gives what one rounding of the exact value would.

/// A direction of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// To nearest, ties away from zero.
    Away,
}

impl Round {
    /// From an opcode's modifier (`rn`, `rzi`).
    pub fn parse(name: &str) -> Option<Round> {
        match name.trim_end_matches('i') {
            "rn" => Some(Round::Nearest),
            "rz" => Some(Round::Zero),
            "rm" => Some(Round::Down),
            "rp" => Some(Round::Up),
            "rna" => Some(Round::Away),
            _ => None,
        }
    }

    /// The inverse of `as u8`.
    #[inline(always)]
    pub fn from_code(code: u8) -> Round {
        [Round::Nearest, Round::Zero, Round::Down, Round::Up, Round::Away][code.min(4) as usize]
    }

    /// Rounds to a whole number.
    pub fn integral(self, x: f64) -> f64 {
        match self {
            Round::Nearest => x.round_ties_even(),
            Round::Zero => x.trunc(),
            Round::Down => x.floor(),
            Round::Up => x.ceil(),
            Round::Away => x.round(),
        }
    }
}

/// A binary interchange format narrower than f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Exponent bits.
    pub exponent: u32,
    /// Explicit bits of the significand.
    pub mantissa: u32,
}

/// IEEE half.
pub const F16: Format = Format { exponent: 5, mantissa: 10 };
/// bfloat16.
pub const BF16: Format = Format { exponent: 8, mantissa: 7 };
/// The matrix units' 19-bit float.
pub const TF32: Format = Format { exponent: 8, mantissa: 10 };
/// IEEE single.
pub const F32: Format = Format { exponent: 8, mantissa: 23 };

/// The bits of `x` rounded to `format`. NaN becomes the format's NaN of all ones below the sign.
#[inline(always)]
pub fn narrow(x: f64, format: Format, round: Round) -> u32 {
    let (bits, width) = (x.to_bits(), format.exponent + format.mantissa);
    let sign = ((bits >> 63) as u32) << width;
    let infinity = ((1u32 << format.exponent) - 1) << format.mantissa;
    if x.is_nan() {
        return (1 << width) - 1;
    }
    if x.is_infinite() {
        return sign | infinity;
    }
    let negative = sign != 0;
    let smallest = 2 - (1i32 << (format.exponent - 1));
    let exponent = ((bits >> 52 & 0x7ff) as i32 - 1023).max(-1022);
    let hidden = u64::from(bits >> 52 & 0x7ff != 0) << 52;
    let significand = (bits & ((1 << 52) - 1)) | hidden;
    let shift = (52 - format.mantissa as i32 + (smallest - exponent).max(0)).min(63) as u32;
    let (kept, rest) = (significand >> shift, significand & ((1 << shift) - 1));
    let half = 1u64 << (shift - 1);
    let up = match round {
        Round::Nearest => rest > half || (rest == half && kept & 1 != 0),
        Round::Away => rest >= half,
        Round::Zero => false,
        Round::Down => negative && rest != 0,
        Round::Up => !negative && rest != 0,
    };
    let base = ((exponent.max(smallest) - smallest) as u64) << format.mantissa;
    let magnitude = base + kept + u64::from(up);
    if magnitude >= u64::from(infinity) {
        let stays = match round {
            Round::Zero => true,
            Round::Down => !negative,
            Round::Up => negative,
            _ => false,
        };
        return sign | if stays { infinity - 1 } else { infinity };
    }
    sign | magnitude as u32
}

/// The value of a half.
#[inline(always)]
pub fn widen_f16(bits: u32) -> f32 {
    let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let value = if magnitude >= 0x7c00 { 0x7f80_0000 | (magnitude & 0x3ff) << 13 } else { scaled.to_bits() };
    f32::from_bits(sign | value)
}

/// The value of a bfloat16.
#[inline(always)]
pub fn widen_bf16(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

/// `sum` made odd where the exact value is `sum + rest`.
#[inline(always)]
fn odd(sum: f64, rest: f64) -> f64 {
    let bits = sum.to_bits();
    if rest == 0.0 || rest.is_nan() || !sum.is_finite() || bits & 1 != 0 {
        return sum;
    }
    if sum == 0.0 {
        return rest;
    }
    f64::from_bits(if (rest > 0.0) == (sum > 0.0) { bits + 1 } else { bits - 1 })
}

/// `a + b` rounded to odd.
#[inline(always)]
pub fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let bb = sum - a;
    odd(sum, (a - (sum - bb)) + (b - bb))
}

/// `a * b + c` rounded to odd, for factors of at most 26 significant bits, whose product is exact.
#[inline(always)]
pub fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    add_odd(a * b, c)
}

/// `a / b` rounded to odd, for singles and narrower.
#[inline(always)]
pub fn div_odd(a: f64, b: f64) -> f64 {
    let q = a / b;
    if !q.is_finite() || b.is_infinite() {
        return q;
    }
    let rest = (-q).mul_add(b, a);
    odd(q, if b < 0.0 { -rest } else { rest })
}

/// The square root of `a` rounded to odd, for singles and narrower.
#[inline(always)]
pub fn sqrt_odd(a: f64) -> f64 {
    let root = a.sqrt();
    if root.is_finite() { odd(root, (-root).mul_add(root, a)) } else { root }
}

/// A whole number rounded to odd.
#[inline(always)]
pub fn int_odd(x: i128) -> f64 {
    let nearest = x as f64;
    odd(nearest, (x - nearest as i128) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_and_singles_round_like_the_cpu() {
        for bits in 0..0x1_0000u32 {
            let wide = widen_f16(bits);
            if !wide.is_nan() {
                assert_eq!(narrow(f64::from(wide), F16, Round::Nearest), bits);
                assert_eq!(
                    narrow(f64::from(widen_bf16(bits)), BF16, Round::Nearest) == bits,
                    !widen_bf16(bits).is_nan()
                );
            }
        }
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let x = f64::from_bits(state ^ state >> 29);
            if !x.is_nan() {
                assert_eq!(narrow(x, F32, Round::Nearest), (x as f32).to_bits(), "{x:e}");
            }
        }
    }

    #[test]
    fn directions() {
        let third = 1.0f64 / 3.0;
        let down = f32::from_bits(narrow(third, F32, Round::Down));
        let up = f32::from_bits(narrow(third, F32, Round::Up));
        assert!(f64::from(down) < third && third < f64::from(up) && up == down.next_up());
        assert_eq!(narrow(-third, F32, Round::Zero), (-down).to_bits());
        assert_eq!(f32::from_bits(narrow(1e300, F32, Round::Zero)), f32::MAX);
        assert_eq!(narrow(1e300, F32, Round::Up), f32::INFINITY.to_bits());
        assert_eq!(narrow(1.0 + 1.0 / 2048.0, F16, Round::Nearest), 0x3c00, "a tie goes to even");
        assert_eq!(narrow(1.0 + 1.0 / 2048.0, F16, Round::Away), 0x3c01);
    }

    #[test]
    fn fma_rounds_once() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f32::from_bits(((state >> 33) as u32 & 0x83ff_ffff) | 0x3c00_0000)
        };
        for _ in 0..100_000 {
            let (a, b, c) = (next(), next(), next());
            let got = narrow(fma_odd(a.into(), b.into(), c.into()), F32, Round::Nearest);
            assert_eq!(got, a.mul_add(b, c).to_bits(), "{a:e} {b:e} {c:e}");
            assert_eq!(narrow(div_odd(a.into(), b.into()), F32, Round::Nearest), (a / b).to_bits());
            assert_eq!(narrow(sqrt_odd(a.abs().into()), F32, Round::Nearest), a.abs().sqrt().to_bits());
        }
    }
}
