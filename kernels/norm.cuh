// How normalisation's kernels find the numbers of a channel of an item.
#pragma once

#include "tiles.cuh"

// What the vectors are indexed by: element of group, scale or shift = item·(item's stride) + channel·(channel's stride).
struct Norm {
    float epsilon;
    uint32_t groups;        // in all; 0: no statistics
    uint32_t item_group;    // 0, or the channels (instance norm)
    uint32_t channel_group; // 0 (one group) or 1
    uint32_t item_gamma;    // 0, or the channels
    uint32_t item_beta;     // 0, or the channels
};

struct Vectors {
    const float* statistics; // [2, groups], or null
    const float* gamma;      // [C] or [items, C], or null
    const float* beta;       // [C] or [items, C], or null
    Norm norm;

    __device__ uint64_t group(uint64_t item, uint32_t c) const {
        return item * norm.item_group + (uint64_t)c * norm.channel_group;
    }
    __device__ float mean(uint64_t item, uint32_t c) const { return statistics ? statistics[group(item, c)] : 0.0f; }
    // 1/√(σ² + ε)
    __device__ float rescale(uint64_t item, uint32_t c) const {
        return statistics ? 1.0f / sqrtf(statistics[norm.groups + group(item, c)] + norm.epsilon) : 1.0f;
    }
    __device__ float scale(uint64_t item, uint32_t c) const { return gamma ? gamma[item * norm.item_gamma + c] : 1.0f; }
    __device__ float shift(uint64_t item, uint32_t c) const { return beta ? beta[item * norm.item_beta + c] : 0.0f; }
};
