// How [items, rows, channels] is cut for passes that treat each channel of each item on its own: the twin of
// src/ops/cuda/tiling.rs.
//
// An item is read as virtual rows of `width` elements, the least common multiple of 4 and the channels, so that every
// thread handles four neighbours (one 16-byte access) whose channels stay the same from row to row:
//
//   blockIdx.z   item
//   blockIdx.x   piece: lanes·steps virtual rows        thread = lane·columns + column: a warp reads a stretch of memory
//   blockIdx.y   columns·4 of the width's elements      thread goes through rows lane, lane + lanes, …
#pragma once

#include "vec4.cuh"

struct Tiling {
    uint64_t length;   // elements of an item
    uint32_t channels; // real ones
    uint32_t width;    // virtual ones
    uint32_t columns;  // fours that a block handles side by side
    uint32_t lanes;    // rows that it handles at once
    uint32_t steps;    // rows that a thread handles
    uint32_t pieces;   // blocks along the rows

    __device__ uint32_t column() const { return threadIdx.x % columns; }
    __device__ uint32_t lane() const { return threadIdx.x / columns; }
    // First virtual channel of this thread.
    __device__ uint32_t channel() const { return (blockIdx.y * columns + column()) * 4; }
    __device__ bool works() const { return lane() < lanes && channel() < width; }
    // Elements of virtual channel `c` in piece `piece`, or in number `piece` of the groups of `each` pieces.
    __device__ uint32_t rows_in(uint32_t piece, uint32_t c, uint32_t each = 1) const {
        const uint64_t most = (uint64_t)each * lanes * steps, first = piece * most;
        const uint64_t all = c < length ? (length - c + width - 1) / width : 0;
        const uint64_t rest = all > first ? all - first : 0;
        return (uint32_t)min(rest, most);
    }
};

// Calls body(index in the tensor, elements that exist) for each four of this thread.
template <class Body> __device__ inline void for_fours(const Tiling& t, Body body) {
    if (!t.works()) return;
    const uint64_t item = blockIdx.z * t.length, stride = (uint64_t)t.lanes * t.width;
    uint64_t at = ((uint64_t)blockIdx.x * t.lanes * t.steps + t.lane()) * t.width + t.channel();
#pragma unroll 1
    for (uint32_t step = 0; step < t.steps && at < t.length; step++, at += stride)
        body(item + at, (uint32_t)min(t.length - at, (uint64_t)4));
}

// Sums K values a thread over the lanes of a block, pairwise; lane 0 has them. `parts` is [K][THREADS]. All threads must
// take part; those without work bring zeros.
template <int K, class T> __device__ inline void sum_lanes(const Tiling& t, T (&values)[K], T (*parts)[THREADS]) {
    const uint32_t lane = t.lane();
    uint32_t stride = 1;
    while (stride < t.lanes) stride *= 2;
    for (int k = 0; k < K; k++) parts[k][threadIdx.x] = values[k];
    __syncthreads();
    for (stride /= 2; stride > 0; stride /= 2) {
        if (lane < stride && lane + stride < t.lanes)
            for (int k = 0; k < K; k++) parts[k][threadIdx.x] += parts[k][threadIdx.x + stride * t.columns];
        __syncthreads();
    }
    if (lane == 0)
        for (int k = 0; k < K; k++) values[k] = parts[k][threadIdx.x];
}
