// Exclusive sums within a block.
#pragma once

#include "common.cuh"

// Exclusive sum over the threads of a block of 256; the total in `total`.
template <typename T> __device__ T block_exclusive(T value, T* total) {
    __shared__ T warps[THREADS / WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    T inclusive = value;
    for (int offset = 1; offset < WARP; offset *= 2) {
        const T before = __shfl_up_sync(ALL_LANES, inclusive, offset);
        if (lane >= offset) inclusive += before;
    }
    __syncthreads(); // an earlier use of `warps` is over
    if (lane == WARP - 1) warps[warp] = inclusive;
    __syncthreads();
    T before = 0, sum = 0;
    for (int other = 0; other < THREADS / WARP; other++) {
        if (other < warp) before += warps[other];
        sum += warps[other];
    }
    *total = sum;
    return before + inclusive - value;
}
