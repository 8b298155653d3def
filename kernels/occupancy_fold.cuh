// How a layer is folded for a volume: what both precisions share.
#pragma once

#include "common.cuh"

// The normalisation behind a layer, for one volume; without scale and shift there is none.
struct Normalisation {
    const float* statistics; // mean, variance
    const float* gamma;      // [width]
    const float* beta;       // [width]
    float epsilon;
    uint32_t padding;
};

// The activation behind a layer: where its coefficients are, how many, and where they go.
struct Coefficients {
    const float* from[2];
    uint32_t lengths[2];
    float* to;

    __device__ void copy() const {
        if (blockIdx.x > 0 || blockIdx.y > 0) return;
        const uint32_t i = threadIdx.x, first = lengths[0];
        if (i < first + lengths[1]) to[i] = i < first ? from[0][i] : from[1][i - first];
    }
};

// What a layer's results are multiplied by and shifted to: s = γ/√(σ² + ε) and s·(b − μ) + β; 1 and b without normalisation.
class Scale {
    const Normalisation& norm;
    const uint32_t width;
    const float rescale;

  public:
    __device__ Scale(const Normalisation& norm, uint32_t width)
        : norm(norm), width(width), rescale(norm.gamma ? 1.0f / sqrtf(norm.statistics[1] + norm.epsilon) : 1.0f) {}
    __device__ float operator()(uint32_t n) const { return norm.gamma ? norm.gamma[n] * rescale : 1.0f; }
    __device__ float offset(uint32_t n, const float* bias) const {
        if (n >= width) return 0.0f;
        return norm.gamma ? fmaf((*this)(n), bias[n] - norm.statistics[0], norm.beta[n]) : bias[n];
    }
};
