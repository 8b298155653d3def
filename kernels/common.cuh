// What all kernels share: types, loops, reductions in a fixed order.
//
// Determinism: every sum has a shape that depends on the problem and never on the device, the number of blocks in flight
// or the order in which they run. There are no floating-point atomics.
#pragma once

#include <cstdint>
#include <cuda_bf16.h>

using bf16 = __nv_bfloat16;

// What activations are stored in. A file of kernels that store them is compiled twice: as it is, and by NAME_bf16.cu, which
// gives its kernels their second name. Arithmetic is f32 in either.
#ifdef BF16
using real = bf16;
#define KERNEL(NAME) NAME##_bf16
#else
using real = float;
#define KERNEL(NAME) NAME
#endif

// Threads of a block of element-wise kernels (`THREADS` in src/device/launch_config.rs).
constexpr int THREADS = 256;
constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// A grid-stride loop over `n` elements; any grid covers them.
#define for_elements(i, n)                                                                                             \
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (uint64_t)gridDim.x * blockDim.x)

// Element `i` of f32 or bf16 numbers.
__device__ inline float stored(const void* data, uint64_t i, bool narrow) {
    return narrow ? (float)((const bf16*)data)[i] : ((const float*)data)[i];
}

// Writes or adds: the gradient of a value that several ops read.
template <class T> __device__ inline void put(T* target, float value, bool accumulate) {
    *target = accumulate ? (float)*target + value : value;
}

// Sum over the lanes of a warp, in every lane; all lanes must take part.
template <typename T> __device__ inline T warp_sum(T value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

// Sum over the threads of a block (a multiple of 32, at most 1024), in every thread; all threads must take part.
template <typename T> __device__ inline T block_sum(T value) {
    __shared__ T parts[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_sum(value);
    __syncthreads(); // an earlier use of `parts` is over
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    return warp_sum(lane < warps ? parts[lane] : T(0));
}

// Where a weight's gradient goes from the only split of its product: rows `pitch` apart, written or added to. Of several
// splits each has a part of its own, which `sum_splits` adds.
struct Whole {
    uint32_t pitch, accumulate;
};
