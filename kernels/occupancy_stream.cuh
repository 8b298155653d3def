// What the occupancy decoders of both precisions share: the stream of weights, and what a block is told.
#pragma once

#include "async.cuh"

namespace occupancy {

// Floats of a slice of weights: `SLICE` of src/ops/fused_decoder/mod.rs.
constexpr uint32_t SLICE = 1 << 12;

// The packed weights as they pass by.
template <uint32_t THREADS> class Stream {
    const float* ahead;
    uint32_t left;
    float* buffers;
    uint32_t turn = 0;

    __device__ void fetch() {
        if (left > 0) {
            float* to = buffers + turn * SLICE;
#pragma unroll
            for (uint32_t i = 0; i < SLICE / 4 / THREADS; i++) {
                const uint32_t at = (i * THREADS + threadIdx.x) * 4;
                copy_async(to + at, ahead + at);
            }
            left--, ahead += SLICE, turn ^= 1;
        }
        commit_copies();
    }

  public:
    __device__ Stream(const float* packed, uint32_t slices, float* buffers)
        : ahead(packed), left(slices), buffers(buffers) {
        fetch();
    }
    // The next slice `[DEPTH][COLUMNS]`, and everything that threads wrote to shared memory before.
    __device__ const float* next() {
        await_copies<0>();
        __syncthreads();
        // Where the slice lies that was waited for: where the next but one goes.
        const float* slice = buffers + (turn ^ 1) * SLICE;
        fetch();
        return slice;
    }
};

// What all blocks read: see src/ops/fused_decoder/mod.rs for the layouts.
struct Decoder {
    const float* packed;       // slices of the weights
    const float* offsets;      // [1 + layers][COLUMNS]: of the residual's product, then of each layer
    const float* coefficients; // [layers][numerators + denominators] of the activations
    const float* last;         // [classes, width]
    uint32_t slices, layers, features, width, classes, numerators, denominators;
    uint32_t coordinates; // the first of the three features that are coordinates, which are not rounded
    uint32_t kind;        // which activation, where a kernel knows several
    float slope;          // of a leaky rectifier that is given one
};

} // namespace occupancy
