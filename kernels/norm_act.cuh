// Normalisation, affine map, residual and activation in one pass each way; with nothing but an activation it is the op
// `activation`. Formulas: src/ops/norm_act/mod.rs.
//
// Tiles of tiles.cuh: a thread keeps the numbers of its four channels and the activation's coefficients in registers and
// goes down the rows, so every element moves once, 16 bytes a thread and access.
//
//   norm_act_NAME         y = act(γ·x̂ + β [+ r]) [+ r]       8 bytes an element, 12 with a residual
//   norm_act_first_NAME   g = dy·act'(v), sums of a piece     12 bytes an element (16 with a residual in v)
//   norm_act_sums         joins the pieces' sums              small
//   norm_act_second       dx from g                           12 bytes an element
//
// FLOPs: 4 + a forward, 12 + 2a backward (a: the activation's). At 5/4 Padé units that is 2 to 3 FLOPs a byte: bound by
// memory on every device. Sums: a thread adds at most 256 terms in f32, a block pairwise, pieces are joined in f64.
//
// A faster one would do all this in the prologue of the product or convolution that reads y, and never write y.
//
// The first two are made for every activation, in activation.cu, pade.cu and pade54.cu: a driver compiles a file's kernels
// when the first of them is launched, and a network uses one activation.
#pragma once

#include "activation.cuh"
#include "norm.cuh"

// The numbers of a thread's four channels.
struct Affine {
    float mean[4], scale[4], shift[4];

    __device__ Affine(const Vectors& v, const Tiling& t) {
        for (int k = 0; k < 4; k++) {
            const uint32_t c = t.works() ? (t.channel() + k) % t.channels : 0;
            mean[k] = v.mean(blockIdx.z, c);
            scale[k] = v.rescale(blockIdx.z, c) * v.scale(blockIdx.z, c);
            shift[k] = v.shift(blockIdx.z, c);
        }
    }
    // γ·x̂ + (β + r)
    __device__ Four map(const Four& x, const Four& r) const {
        Four v;
        for (int k = 0; k < 4; k++) v.v[k] = fmaf(x.v[k] - mean[k], scale[k], shift[k] + r.v[k]);
        return v;
    }
};

// x, before, after, y [items, rows, C]; `before` is added to the activation's argument, `after` to its value, or null.
template <class F>
__device__ void forward(const real* x, const Vectors& vectors, const real* before, const real* after, const F& f,
                        real* y, const Tiling& t) {
    const Affine affine(vectors, t);
    bool extreme = false;
    for_fours(t, [&](uint64_t at, uint32_t count) {
        const Four r = before ? load_four(before + at, count) : Four{};
        Four v = values(f, affine.map(load_four(x + at, count), r), extreme);
        if (after) {
            const Four a = load_four(after + at, count);
            for (int k = 0; k < 4; k++) v.v[k] += a.v[k];
        }
        store_four(y + at, v, count);
    });
    if (!F::BOUNDED || !extreme) return;
    for_fours(t, [&](uint64_t at, uint32_t count) {
        const Four r = before ? load_four(before + at, count) : Four{};
        const Four v = affine.map(load_four(x + at, count), r);
#pragma unroll 1
        for (int k = 0; k < count; k++)
            if (F::extreme(v.pick(k))) y[at + k] = f.extreme_value(v.pick(k)) + (after ? (float)after[at + k] : 0.0f);
    });
}

// dy → g (may be dy itself, or null if the activation is the identity); sums of the piece:
// channel_sums [items, pieces, 2, width] (Σ g and Σ g·(x − μ); null if not wanted), coefficient_sums [K, blocks].
template <class F>
__device__ void first(const real* dy, const real* x, const Vectors& vectors, const real* before, const F& f,
                      real* g, float* channel_sums, float* coefficient_sums, const Tiling& t) {
    constexpr int K = F::COEFFICIENTS;
    __shared__ float parts[8][THREADS];
    const Affine affine(vectors, t);
    float sums[8] = {}, coefficients[K > 0 ? K : 1] = {};
    bool extreme = false;
    for_fours(t, [&](uint64_t at, uint32_t count) {
        Four d = load_four(dy + at, count);
        const Four value = load_four(x + at, count);
        if (g) {
            const Four r = before ? load_four(before + at, count) : Four{}, v = affine.map(value, r);
            Four out = gradients(f, v, d, coefficients, extreme);
            // Where the argument is extreme dy stays for the second time.
            for (int k = 0; k < 4; k++) {
                const float slope = out.v[k];
                out.v[k] = F::extreme(v.v[k]) ? d.v[k] : slope;
                d.v[k] = slope;
            }
            store_four(g + at, out, count);
        }
        if (channel_sums)
            for (int k = 0; k < 4; k++) {
                // Where nothing is loaded d is 0, but for a slope that is not finite.
                const float own = k < count ? d.v[k] : 0.0f;
                sums[k] += own;
                sums[4 + k] = fmaf(own, value.v[k] - affine.mean[k], sums[4 + k]);
            }
    });
    if (F::BOUNDED && extreme && g)
        for_fours(t, [&](uint64_t at, uint32_t count) {
            const Four value = load_four(x + at, count), r = before ? load_four(before + at, count) : Four{};
            const Four v = affine.map(value, r);
#pragma unroll 1
            for (int k = 0; k < count; k++) {
                if (!F::extreme(v.pick(k))) continue;
                const float d = f.extreme_gradient(v.pick(k), g[at + k], coefficients);
                g[at + k] = d;
                // Unrolled, or the sums would live in local memory.
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (j == k) {
                        sums[j] += d;
                        sums[4 + j] = fmaf(d, value.v[j] - affine.mean[j], sums[4 + j]);
                    }
            }
        });
    if (channel_sums) {
        sum_lanes(t, sums, parts);
        if (t.lane() == 0 && t.works()) {
            float* out = channel_sums + ((uint64_t)blockIdx.z * t.pieces + blockIdx.x) * 2 * t.width + t.channel();
            for (int k = 0; k < 4; k++) out[k] = sums[k], out[t.width + k] = sums[4 + k];
        }
    }
    leave_coefficients(f, coefficients, coefficient_sums);
}

// `numerator` and `denominator`: the activation's learnt parameters, or null; `given`: a leaky rectifier's slope, or the
// number of a Padé unit's coefficients.
#define KERNELS(NAME, F)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                           \
        KERNEL(norm_act_##NAME)(const real* x, const float* statistics, const float* gamma, const float* beta,         \
                                Norm norm, const real* before, const float* numerator, const float* denominator,       \
                                float given, const real* after, real* y, Tiling t) {                                   \
        forward(x, Vectors{statistics, gamma, beta, norm}, before, after, F(numerator, denominator, given), y, t);     \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        KERNEL(norm_act_first_##NAME)(const real* x, const float* statistics, const float* gamma, const float* beta,   \
                                      Norm norm, const real* before, const float* numerator, const float* denominator, \
                                      float given, const real* dy, real* g, float* channel_sums,                       \
                                      float* coefficient_sums, Tiling t) {                                             \
        first(dy, x, Vectors{statistics, gamma, beta, norm}, before, F(numerator, denominator, given), g, channel_sums, \
              coefficient_sums, t);                                                                      \
    }
