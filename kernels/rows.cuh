// Rows of a few classes: `span` lanes of a warp share a row. And the functions of probabilities that ops share.
#pragma once

#include "vec4.cuh"

// 1/(1 + e^−x), exact to rounding also where it is close to 0.
__device__ inline float logistic(float x) {
    const float small = expf(-fabsf(x));
    return x < 0.0f ? small / (1.0f + small) : 1.0f / (1.0f + small);
}

// The row of a group of lanes. Groups past the last row take part in shuffles, with no classes.
struct Row {
    uint64_t index;
    uint32_t lane;
    bool there;

    __device__ uint32_t classes(uint32_t all) const { return there ? all : 0; }
};

__device__ inline Row row_of(uint64_t round, uint64_t rows, uint32_t span) {
    const uint64_t thread = (round * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x, index = thread / span;
    return {index, threadIdx.x % span, index < rows};
}

// A loop over `rows` rows in which whole warps stay together; any grid covers them.
#define for_rows(row, rows, span)                                                                                      \
    for (uint64_t round = 0; round * gridDim.x * blockDim.x < (rows) * (span); round++)                                \
        if (const Row row = row_of(round, rows, span); true)

// Sum over the lanes of a row, in each of them; all lanes of the warp must take part.
__device__ inline float span_sum(float value, uint32_t span) {
    for (uint32_t offset = span / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

__device__ inline float span_max(float value, uint32_t span) {
    for (uint32_t offset = span / 2; offset > 0; offset /= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, offset));
    return value;
}
