// Normalisation, affine map, activation and the mean of each 2×2×2 window in one pass each way: what an encoder block does
// behind its first convolution. The activation at the full resolution never exists. Formulas: src/ops/norm_act_pool/mod.rs.
//
// Tiles of tiles.cuh, whose rows are windows: a thread keeps the numbers of its four channels and the activation's coefficients
// in registers, goes down the windows, and takes the eight voxels of each, 16 bytes (8 in bf16) an access. Channels come in
// fours. Along an odd axis the last windows are cut short: the pool drops them, so that nothing but the statistics' gradient
// reaches their voxels.
//
//   norm_act_pool_NAME          y = mean of act(γ·x̂ + β) over each window       4.5 bytes a voxel and channel
//   norm_act_pool_first_NAME    Σ g, Σ g·(x − μ), coefficients' gradients        4.5, nothing written but sums
//   (norm_act_sums joins them)
//   norm_act_pool_second_NAME   dx, g = dy/8·act'(v) made again                  8.5
//
// To write g in the first pass and read it in the second would take 8 bytes more; the activation's slope once more is some 30
// instructions (norm_act.cuh), which an A100 or H100 issues in the time of 3 to 6 bytes.
// Against norm, activation and pool one after the other: 20.5 bytes forward, 32.5 backward.
// FLOPs an element: 5 + a forward, 14 + 4a backward (a: the activation's).

#include "activation.cuh"
#include "norm_through.cuh"

// A volume [batch, D, H, W, C] and its windows, counted along each axis: all of them, and those that are whole.
struct Volume {
    uint32_t sides[3], windows[3], pooled[3];
};

// A window: its first voxel, voxel of the pooled volume, voxels along each axis.
struct Window {
    uint64_t voxel, pooled;
    uint32_t extent[3];
    bool whole;

    __device__ Window(const Volume& v, uint32_t row) {
        uint32_t at[3];
        for (int a = 2; a >= 0; a--) at[a] = row % v.windows[a], row /= v.windows[a];
        voxel = row, pooled = row, whole = true;
        for (int a = 0; a < 3; a++) {
            voxel = voxel * v.sides[a] + 2 * at[a], pooled = pooled * v.pooled[a] + at[a];
            extent[a] = min(2u, v.sides[a] - 2 * at[a]);
            whole = whole && at[a] < v.pooled[a];
        }
    }
    // Whether it has member `m` of eight, and which voxel that is.
    __device__ bool has(int m) const {
        return (uint32_t)(m >> 2) < extent[0] && (uint32_t)(m >> 1 & 1) < extent[1] && (uint32_t)(m & 1) < extent[2];
    }
    __device__ uint64_t member(const Volume& v, int m) const {
        return voxel + ((uint64_t)(m >> 2) * v.sides[1] + (m >> 1 & 1)) * v.sides[2] + (m & 1);
    }
};

// Calls body(window) for each window of this thread.
template <class Body> __device__ inline void for_windows(const Volume& v, const Tiling& t, Body body) {
    if (!t.works()) return;
    const uint32_t windows = t.length / t.channels;
    uint32_t row = blockIdx.x * t.lanes * t.steps + t.lane();
#pragma unroll 1
    for (uint32_t step = 0; step < t.steps && row < windows; step++, row += t.lanes) body(Window(v, row));
}

// γ·x̂ + β of a thread's four channels.
struct Affine {
    float mean[4], scale[4], shift[4];

    __device__ Affine(const Vectors& v, const Tiling& t) {
        for (int k = 0; k < 4; k++) {
            const uint32_t c = t.works() ? t.channel() + k : 0;
            mean[k] = v.mean(0, c), scale[k] = v.rescale(0, c) * v.scale(0, c), shift[k] = v.shift(0, c);
        }
    }
    __device__ Four map(const Four& x) const {
        Four v;
        for (int k = 0; k < 4; k++) v.v[k] = fmaf(x.v[k] - mean[k], scale[k], shift[k]);
        return v;
    }
};

// A member of a window.
__device__ inline Four load_member(const real* x, const Volume& v, const Window& w, int m, const Tiling& t) {
    return load_aligned(x + w.member(v, m) * t.channels + t.channel());
}

// y [batch, D/2, H/2, W/2, C]
template <class F>
__device__ void forward(const real* x, const Vectors& vectors, const F& f, real* y, const Volume& v, const Tiling& t) {
    const Affine affine(vectors, t);
    for_windows(v, t, [&](const Window& w) {
        if (!w.whole) return;
        Four members[8], sum = {};
        bool extreme = false;
#pragma unroll
        for (int m = 0; m < 8; m++) members[m] = load_member(x, v, w, m, t);
#pragma unroll
        for (int m = 0; m < 8; m++) {
            const Four a = values(f, affine.map(members[m]), extreme);
            for (int k = 0; k < 4; k++) sum.v[k] += a.v[k];
        }
        if (F::BOUNDED && extreme) {
            sum = {};
#pragma unroll 1
            for (int m = 0; m < 8; m++) {
                const Four argument = affine.map(load_member(x, v, w, m, t));
                Four a = values(f, argument, extreme);
#pragma unroll 1
                for (int k = 0; k < 4; k++)
                    if (F::extreme(argument.pick(k))) a.replace(k, f.extreme_value(argument.pick(k)));
                for (int k = 0; k < 4; k++) sum.v[k] += a.v[k];
            }
        }
        for (int k = 0; k < 4; k++) sum.v[k] *= 0.125f;
        store_aligned(y + w.pooled * t.channels + t.channel(), sum);
    });
}

// dy/8 of a whole window; beyond those the pool sees nothing.
__device__ inline Four share(const real* dy, const Window& w, const Tiling& t) {
    if (!w.whole) return {};
    Four d = load_aligned(dy + w.pooled * t.channels + t.channel());
    for (int k = 0; k < 4; k++) d.v[k] *= 0.125f;
    return d;
}

// g of four arguments where some may be extreme; adds to `coefficients`.
template <class F> __device__ inline Four derive(const F& f, const Four& v, const Four& d, float* coefficients) {
    bool extreme = false;
    Four g = gradients(f, v, d, coefficients, extreme);
    if (F::BOUNDED && extreme) {
#pragma unroll 1
        for (int k = 0; k < 4; k++)
            if (F::extreme(v.pick(k))) g.replace(k, f.extreme_gradient(v.pick(k), d.pick(k), coefficients));
    }
    return g;
}

// A thread's sums: g and g·(x − μ) of its channels, and the coefficients' gradients.
template <class F> struct Sums {
    float of_g[4] = {}, of_products[4] = {}, coefficients[F::COEFFICIENTS] = {};

    __device__ void add(const Four& g, const Four& x, const Affine& affine) {
        for (int k = 0; k < 4; k++)
            of_g[k] += g.v[k], of_products[k] = fmaf(g.v[k], x.v[k] - affine.mean[k], of_products[k]);
    }
};

// Sums of the piece: channel_sums [pieces, 2, C] (Σ g and Σ g·(x − μ)), coefficient_sums [K, blocks].
template <class F>
__device__ void first(const real* dy, const real* x, const Vectors& vectors, const F& f, float* channel_sums,
                      float* coefficient_sums, const Volume& v, const Tiling& t) {
    __shared__ float parts[8][THREADS];
    const Affine affine(vectors, t);
    Sums<F> sums;
    for_windows(v, t, [&](const Window& w) {
        if (!w.whole) return;
        const Four d = share(dy, w, t);
        Four members[8];
        bool extreme = false;
#pragma unroll
        for (int m = 0; m < 8; m++) members[m] = load_member(x, v, w, m, t);
#pragma unroll
        for (int m = 0; m < 8; m++)
            sums.add(gradients(f, affine.map(members[m]), d, sums.coefficients, extreme), members[m], affine);
        if (F::BOUNDED && extreme) {
            // Those that are extreme counted as zeros.
#pragma unroll 1
            for (int m = 0; m < 8; m++) {
                const Four value = load_member(x, v, w, m, t), argument = affine.map(value);
                Four g = {};
#pragma unroll 1
                for (int k = 0; k < 4; k++)
                    if (F::extreme(argument.pick(k)))
                        g.replace(k, f.extreme_gradient(argument.pick(k), d.pick(k), sums.coefficients));
                sums.add(g, value, affine);
            }
        }
    });
    float totals[8];
    for (int k = 0; k < 4; k++) totals[k] = sums.of_g[k], totals[4 + k] = sums.of_products[k];
    sum_lanes(t, totals, parts);
    if (t.lane() == 0 && t.works()) {
        float* out = channel_sums + (uint64_t)blockIdx.x * 2 * t.width + t.channel();
        for (int k = 0; k < 4; k++) out[k] = totals[k], out[t.width + k] = totals[4 + k];
    }
    leave_coefficients(f, sums.coefficients, coefficient_sums);
}

// dx (+)= scale·g + slope·(x − μ) + offset of all voxels; x may be dx itself.
template <class F>
__device__ void second(const real* dy, const real* x, const Vectors& vectors, const F& f, const Through& back, real* dx,
                       bool accumulate, const Volume& v, const Tiling& t) {
    const Affine affine(vectors, t);
    const auto write = [&](const Window& w, int m, const Four& g, const Four& value) {
        Four out = back.of(g, value);
        real* to = dx + w.member(v, m) * t.channels + t.channel();
        if (accumulate) {
            const Four former = load_aligned(to);
            for (int k = 0; k < 4; k++) out.v[k] += former.v[k];
        }
        store_aligned(to, out);
    };
    for_windows(v, t, [&](const Window& w) {
        const Four d = share(dy, w, t);
        Four members[8];
        bool alike = w.whole;
#pragma unroll
        for (int m = 0; m < 8; m++) {
            members[m] = w.has(m) ? load_member(x, v, w, m, t) : Four{};
            const Four argument = affine.map(members[m]);
            for (int k = 0; k < 4; k++) alike = alike && !F::extreme(argument.v[k]);
        }
        float unused[F::COEFFICIENTS] = {};
        if (alike) {
            bool extreme = false;
#pragma unroll
            for (int m = 0; m < 8; m++) write(w, m, gradients(f, affine.map(members[m]), d, unused, extreme), members[m]);
            return;
        }
        // Read again: to index registers would take them to local memory.
#pragma unroll 1
        for (int m = 0; m < 8; m++) {
            if (!w.has(m)) continue;
            const Four value = load_member(x, v, w, m, t);
            write(w, m, w.whole ? derive(f, affine.map(value), d, unused) : Four{}, value);
        }
    });
}

#define POOLED(NAME, F)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        KERNEL(norm_act_pool_##NAME)(const real* x, const float* statistics, const float* gamma, const float* beta,    \
                                     Norm norm, const float* numerator, const float* denominator, real* y, Volume v,   \
                                     Tiling t) {                                                                       \
        forward(x, Vectors{statistics, gamma, beta, norm}, F(numerator, denominator, 0.0f), y, v, t);                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        KERNEL(norm_act_pool_first_##NAME)(const real* x, const float* statistics, const float* gamma,                 \
                                           const float* beta, Norm norm, const float* numerator,                       \
                                           const float* denominator, const real* dy, float* channel_sums,              \
                                           float* coefficient_sums, Volume v, Tiling t) {                              \
        first(dy, x, Vectors{statistics, gamma, beta, norm}, F(numerator, denominator, 0.0f), channel_sums,            \
              coefficient_sums, v, t);                                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        KERNEL(norm_act_pool_second_##NAME)(const real* x, const float* statistics, const float* gamma,                \
                                            const float* beta, Norm norm, const float* numerator,                      \
                                            const float* denominator, const real* dy, const float* sums,               \
                                            uint64_t voxels, uint32_t through, real* dx, uint32_t accumulate,          \
                                            Volume v, Tiling t) {                                                      \
        const Vectors vectors{statistics, gamma, beta, norm};                                                          \
        const Through back(vectors, t, 1, voxels, 0, sums, nullptr, through != 0);                                     \
        second(dy, x, vectors, F(numerator, denominator, 0.0f), back, dx, accumulate != 0, v, t);                      \
    }

using Pade54 = Pade<6, 4>; // orders 5 and 4
POOLED(pade54, Pade54)
