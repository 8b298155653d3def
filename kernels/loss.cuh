// What the losses share: logarithms of clamped probabilities, the focal factor, the loss of two classes, sums in f64.
#pragma once

#include "last_block.cuh"
#include "rows.cuh"

constexpr float CLAMP = 1e-6f;

// A comparison that lets NaN through, which fminf and fmaxf would not.
__device__ inline float clamped(float p) { return p < CLAMP ? CLAMP : p > 1.0f - CLAMP ? 1.0f - CLAMP : p; }

// A value and its slope.
struct Dual {
    float value, slope;
};

// Logarithm of the clamped probability.
__device__ inline Dual clamped_ln(float p) {
    const float q = clamped(p);
    return {logf(q), q == p ? 1.0f / p : 0.0f};
}

// miss^gamma; see `focal` in src/ops/loss/mod.rs.
__device__ inline Dual focal(float miss, float gamma) {
    if (gamma == 0.0f) return {1.0f, 0.0f};
    miss = fmaxf(miss, 0.0f);
    return {powf(miss, gamma), gamma * powf(gamma < 1.0f ? fmaxf(miss, CLAMP) : miss, gamma - 1.0f)};
}

// The twin of `Options` in src/ops/loss/cuda.rs, rules resolved.
struct Binary {
    float w0, w1;
    float gamma;
    float smoothing, lift; // y ← (1 − smoothing)·y + lift
    uint32_t probabilities;
};

__device__ inline Dual binary(const Binary& o, float x, float label) {
    const float y = (1.0f - o.smoothing) * label + o.lift;
    if (o.probabilities) {
        const Dual ln_p = clamped_ln(x);
        // 1 − clamp(p) by its own logarithm: exact where p is small.
        const float q = clamped(x);
        const Dual ln_q = {log1pf(-q), q == x ? -1.0f / (1.0f - x) : 0.0f};
        const float loss = -(o.w1 * y * ln_p.value + o.w0 * (1.0f - y) * ln_q.value);
        const float slope = -(o.w1 * y * ln_p.slope + o.w0 * (1.0f - y) * ln_q.slope);
        const Dual factor = focal(y * (1.0f - x) + (1.0f - y) * x, o.gamma);
        return {factor.value * loss, factor.value * slope + factor.slope * (1.0f - 2.0f * y) * loss};
    }
    const float p = logistic(x), q = logistic(-x);
    // −ln q = max(x, 0) + ln(1 + e^−|x|), and −ln p = −ln q − x.
    const float shared = log1pf(expf(-fabsf(x)));
    const float loss = o.w1 * y * (fmaxf(-x, 0.0f) + shared) + o.w0 * (1.0f - y) * (fmaxf(x, 0.0f) + shared);
    const float slope = o.w0 * (1.0f - y) * p - o.w1 * y * q;
    const Dual factor = focal(y * q + (1.0f - y) * p, o.gamma);
    return {factor.value * loss, factor.value * slope + factor.slope * (1.0f - 2.0f * y) * p * q * loss};
}

// Where the sum over all threads goes: partials [blocks] is scratch, out[0] = scale·Σ. The twin of `Mean` in
// src/ops/loss/cuda.rs.
struct Mean {
    double* partials;
    double scale;
    float* out;
    uint32_t* tickets;

    // All threads of all blocks must take part.
    __device__ void write(double value) const {
        const double sum = block_sum(value);
        if (threadIdx.x == 0) partials[blockIdx.x] = sum;
        if (!last_to_arrive(tickets, gridDim.x)) return;
        double all = 0.0;
        for (uint32_t block = threadIdx.x; block < gridDim.x; block += THREADS) all += fresh(partials + block);
        all = block_sum(all);
        if (threadIdx.x == 0) out[0] = (float)(all * scale);
    }
};
