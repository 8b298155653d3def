// A normalised activation inside a product: a = act(γ·x̂ + β), x̂ = (x − μ)/√(σ² + ε), with one mean and one variance for all of
// x and γ, β one row an item. And what an epilogue that makes its gradient gathers. Formulas: src/ops/norm_act/mod.rs.
#pragma once

#include "activation.cuh"
#include "gemm.cuh"
#include "norm.cuh"

// What becomes of elements of x.
template <class F> struct Activated {
    const Vectors& vectors;
    const F& f;
    uint32_t columns;
    bool vector; // rows of x, γ and β begin at 16 bytes
    float mean, rescale;

    __device__ Activated(const Vectors& v, const F& f, uint32_t columns, bool vector)
        : vectors(v), f(f), columns(columns), vector(vector), mean(v.mean(0, 0)), rescale(v.rescale(0, 0)) {}

    // γ·x̂ + β in columns c … c + 3 of an item, in the order of norm_act.cuh; 0 in columns that do not exist.
    __device__ Four argument(const float4& x, uint32_t item, uint32_t c) const {
        const float4 scale = gemm::quad(vectors.gamma + (uint64_t)item * vectors.norm.item_gamma, c, columns, vector);
        const float4 shift = gemm::quad(vectors.beta + (uint64_t)item * vectors.norm.item_beta, c, columns, vector);
        return {fmaf(x.x - mean, rescale * scale.x, shift.x), fmaf(x.y - mean, rescale * scale.y, shift.y),
                fmaf(x.z - mean, rescale * scale.z, shift.z), fmaf(x.w - mean, rescale * scale.w, shift.w)};
    }

    // The same of one column that exists.
    __device__ float argument_of(float x, uint32_t item, uint32_t c) const {
        return fmaf(x - mean, rescale * vectors.scale(item, c), vectors.shift(item, c));
    }

    // The activation of it, 0 in columns that do not exist.
    __device__ float4 value(const float4& x, uint32_t item, uint32_t c) const {
        const Four v = argument(x, item, c);
        bool extreme = false;
        Four y = values(f, v, extreme);
        if (F::BOUNDED && extreme) {
#pragma unroll 1
            for (int k = 0; k < 4; k++)
                if (F::extreme(v.pick(k))) y.replace(k, f.extreme_value(v.pick(k)));
        }
        for (uint32_t k = 0; k < 4; k++)
            if (c + k >= columns) y.v[k] = 0.0f;
        return make_float4(y.v[0], y.v[1], y.v[2], y.v[3]);
    }
};

// A thread's sums over the rows of a tile: g and g·(x − μ) of each of its columns, and the gradients of the coefficients. Its
// COLUMNS are groups of RUN neighbours; LANES of a warp lie side by side, warps WARPS_M above one another and WARPS_N abreast.
template <class F, int COLUMNS, int RUN, int LANES, int WARPS_M, int WARPS_N> struct Gathered {
    float sums[2][COLUMNS] = {}, coefficients[F::COEFFICIENTS] = {};

    // g = da·act'(v) of the RUN elements of group `part`, of which `count` exist; `off` is x − μ.
    __device__ Four derive(const F& f, int part, const Four& v, const Four& off, const Four& da, uint32_t count) {
        Four g = {};
        bool extreme = false;
#pragma unroll
        for (int k = 0; k < RUN; k++) {
            const bool tame = !F::extreme(v.v[k]);
            g.v[k] = f.gradient(tame ? v.v[k] : 0.0f, tame ? da.v[k] : 0.0f, coefficients);
            extreme |= !tame;
        }
        if (F::BOUNDED && extreme) {
#pragma unroll 1
            for (int k = 0; k < RUN; k++)
                if (F::extreme(v.pick(k))) g.replace(k, f.extreme_gradient(v.pick(k), da.pick(k), coefficients));
        }
#pragma unroll
        for (int k = 0; k < RUN; k++) {
            // Beyond the columns da is 0, but for a slope that is not finite.
            const float own = k < count ? g.v[k] : 0.0f;
            sums[0][part * RUN + k] += own, sums[1][part * RUN + k] = fmaf(own, off.v[k], sums[1][part * RUN + k]);
        }
        return g;
    }

    // The block's sums of the columns from n0 on, to `to` [2, columns]: lanes pairwise, then warps. All threads must take part.
    __device__ void leave(float* to, uint32_t n0, uint32_t columns) const {
        constexpr int WARP_N = LANES * COLUMNS, N = WARPS_N * WARP_N;
        __shared__ float parts[WARPS_M][2][N];
        const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        const int column = warp % WARPS_N * WARP_N + lane % LANES * RUN;
#pragma unroll
        for (int which = 0; which < 2; which++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                float sum = sums[which][j];
                for (int offset = LANES; offset < WARP; offset *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
                if (lane < LANES) parts[warp / WARPS_N][which][column + j / RUN * (LANES * RUN) + j % RUN] = sum;
            }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < 2 * N; i += blockDim.x) {
            const uint32_t which = i / N, c = i % N;
            float sum = 0.0f;
            for (int w = 0; w < WARPS_M; w++) sum += parts[w][which][c];
            if (n0 + c < columns) to[(uint64_t)which * columns + n0 + c] = sum;
        }
    }
};

// Rows of an item, and the layer.
struct Sizes {
    uint32_t rows, features, outputs;
    uint32_t item_bias; // 0, or the outputs
};
