// Four neighbouring elements a thread: accesses of 16 bytes, or of 8 in bf16.
#pragma once

#include "common.cuh"

struct Four {
    float v[4];

    // Element `k` for a `k` that is not known to the compiler, without a trip to local memory.
    __device__ float pick(int k) const { return k == 0 ? v[0] : k == 1 ? v[1] : k == 2 ? v[2] : v[3]; }
    __device__ void replace(int k, float value) {
        for (int j = 0; j < 4; j++) v[j] = j == k ? value : v[j];
    }
};

// Four elements at once, from or to an address that is a multiple of their size.
__device__ inline Four load_aligned(const float* p) {
    const float4 q = *(const float4*)p;
    return {{q.x, q.y, q.z, q.w}};
}

__device__ inline Four load_aligned(const bf16* p) {
    const uint2 q = *(const uint2*)p;
    return {{__uint_as_float(q.x << 16), __uint_as_float(q.x & 0xffff0000u), __uint_as_float(q.y << 16),
             __uint_as_float(q.y & 0xffff0000u)}};
}

__device__ inline void store_aligned(float* p, const Four& x) { *(float4*)p = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]); }

// The bits of a pair, the first in the lower half, each rounded to nearest.
__device__ inline uint32_t pair(float first, float second) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
    return *(const uint32_t*)&both;
}

__device__ inline void store_aligned(bf16* p, const Four& x) {
    *(uint2*)p = make_uint2(pair(x.v[0], x.v[1]), pair(x.v[2], x.v[3]));
}

// Four elements from p, of which the first `count` exist; the others are 0. One access where the address allows it.
template <class T> __device__ inline Four load_four(const T* p, uint32_t count) {
    if (count == 4 && (uint64_t)p % (4 * sizeof(T)) == 0) return load_aligned(p);
    Four x;
    for (int k = 0; k < 4; k++) x.v[k] = k < count ? (float)p[k] : 0.0f;
    return x;
}

template <class T> __device__ inline void store_four(T* p, const Four& x, uint32_t count) {
    if (count == 4 && (uint64_t)p % (4 * sizeof(T)) == 0) return store_aligned(p, x);
    for (int k = 0; k < 4; k++)
        if (k < count) p[k] = x.v[k];
}

// Calls body(index of the first, elements that exist) for each four of `n` elements: a grid-stride loop.
template <class Body> __device__ inline void for_each_four(uint64_t n, Body body) {
    for_elements(i, (n + 3) / 4) body(4 * i, (uint32_t)min(n - 4 * i, (uint64_t)4));
}
