// Many tensors in one launch: their table comes in the kernel's parameters, which may be 32,764 bytes long since CUDA 12.1, so
// nothing is copied to the device. A block handles CHUNK elements of one tensor.
#pragma once

#include "vec4.cuh"

constexpr int TENSORS = 512;        // of a launch: `TENSORS` in src/nn/multi_tensor.rs
constexpr uint64_t CHUNK = 1 << 12; // `CHUNK` in src/nn/multi_tensor.rs

// The number of this block's tensor: the last of `count` whose `first_block` is not behind it, found by bisection.
template <class Entry> __device__ inline uint32_t own_tensor(const Entry* entries, uint32_t count) {
    uint32_t low = 0, high = count;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (entries[middle].first_block <= blockIdx.x) low = middle;
        else high = middle;
    }
    return low;
}
