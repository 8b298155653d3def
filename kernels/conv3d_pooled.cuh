// What the first half of an encoder block has in common on either kind of cores: the page is conv3d_pooled.cu.
#pragma once

#include "activation.cuh"
#include "conv3d.cuh"
#include "norm.cuh"

// The windows of a convolution's result: sides of the pooled volume, its order, and those of what is pooled.
struct Pooling {
    uint32_t windows; // in all
    Voxels order;     // of the pooled volume
    uint32_t sides[3];

    // Number of a window's member among the voxels.
    __device__ uint32_t voxel(uint32_t window, uint32_t member) const {
        const uint32_t item = order.volume.split(window), d = order.plane.split(window), h = order.line.split(window);
        const uint32_t plane = item * sides[0] + 2 * d + (member >> 2);
        return (plane * sides[1] + 2 * h + (member >> 1 & 1)) * sides[2] + 2 * window + (member & 1);
    }
};

// Mean, factor and shift of each of the tile's columns, in shared memory [3, N].
template <int N>
__device__ inline void prepare(const Vectors& v, uint32_t n0, uint32_t columns, float (*affine)[N]) {
    for (uint32_t n = threadIdx.x; n < N; n += blockDim.x) {
        const bool there = n0 + n < columns;
        affine[0][n] = there ? v.mean(0, n0 + n) : 0.0f;
        affine[1][n] = there ? v.rescale(0, n0 + n) * v.scale(0, n0 + n) : 0.0f;
        affine[2][n] = there ? v.shift(0, n0 + n) : 0.0f;
    }
    __syncthreads();
}

// Adds f of K arguments to sums; those that are extreme are rare, and evaluated one by one.
template <int K, class F> __device__ inline void add_values(const F& f, const float (&x)[K], float (&sums)[K]) {
    bool extreme = false;
#pragma unroll
    for (int k = 0; k < K; k++) {
        const bool tame = !F::extreme(x[k]);
        sums[k] += tame ? f.value(x[k]) : 0.0f;
        extreme |= !tame;
    }
    if (!F::BOUNDED || !extreme) return;
#pragma unroll 1
    for (int i = 0; i < K; i++) {
        // By selection: an index that is not known would take registers to local memory.
        float own = x[0];
#pragma unroll
        for (int k = 1; k < K; k++) own = i == k ? x[k] : own;
        if (!F::extreme(own)) continue;
        const float value = f.extreme_value(own);
#pragma unroll
        for (int k = 0; k < K; k++) sums[k] += i == k ? value : 0.0f;
    }
}
