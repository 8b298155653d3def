//! Element-wise loops over vector lanes.

use pulp::Simd;

/// `outputs[·][i] = f(inputs[·][i], outputs[·][i])` for each `i`, vector by vector. The lanes past the end of the last
/// vector hold zeros, and what `f` makes of them is dropped.
///
/// Write `f` as `#[inline(always)] |…| …`: a closure left out of line is compiled without the vectors' instructions.
///
/// # Panics
/// If the slices differ in length.
#[inline(always)]
pub(crate) fn zip<S: Simd, const I: usize, const O: usize>(
    simd: S,
    inputs: [&[f32]; I],
    outputs: [&mut [f32]; O],
    mut f: impl FnMut([S::f32s; I], [S::f32s; O]) -> [S::f32s; O],
) {
    let len = outputs[0].len();
    assert!(inputs.iter().all(|input| input.len() == len) && outputs.iter().all(|output| output.len() == len));
    let vectors = len / S::F32_LANES;
    let zero = simd.splat_f32s(0.0);
    let (mut ins, mut outs) = ([zero; I], [zero; O]);
    for i in 0..vectors {
        for k in 0..I {
            ins[k] = S::as_simd_f32s(inputs[k]).0[i];
        }
        for k in 0..O {
            outs[k] = S::as_mut_simd_f32s(outputs[k]).0[i];
        }
        outs = f(ins, outs);
        for k in 0..O {
            S::as_mut_simd_f32s(outputs[k]).0[i] = outs[k];
        }
    }
    let done = vectors * S::F32_LANES;
    if done < len {
        for k in 0..I {
            ins[k] = simd.partial_load_f32s(&inputs[k][done..]);
        }
        for k in 0..O {
            outs[k] = simd.partial_load_f32s(&outputs[k][done..]);
        }
        outs = f(ins, outs);
        for k in 0..O {
            simd.partial_store_f32s(&mut outputs[k][done..], outs[k]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::SimdLevel;

    struct Fused<'a>([&'a [f32]; 2], [&'a mut [f32]; 1]);

    impl pulp::WithSimd for Fused<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            zip(
                simd,
                self.0,
                self.1,
                #[inline(always)]
                |[a, b], [c]| [simd.mul_add_e_f32s(a, b, c)],
            );
        }
    }

    #[test]
    fn every_length_is_covered_exactly() {
        for level in SimdLevel::available() {
            for len in 0..70 {
                let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let mut c = vec![1.0; len + 1];
                level.dispatch(Fused([&a, &a], [&mut c[..len]]));
                assert!(c[..len].iter().enumerate().all(|(i, &c)| c == (i * i) as f32 + 1.0), "{level:?} {len}");
                assert_eq!(c[len], 1.0);
            }
        }
    }
}
