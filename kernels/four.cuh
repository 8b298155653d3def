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

// Four elements from p, of which the first `count` exist; the others are 0. One access where the address allows it.
__device__ inline Four load_four(const float* p, uint32_t count) {
    Four x;
    if (count == 4 && (uint64_t)p % 16 == 0) {
        const float4 q = *(const float4*)p;
        x.v[0] = q.x, x.v[1] = q.y, x.v[2] = q.z, x.v[3] = q.w;
    } else {
        for (int k = 0; k < 4; k++) x.v[k] = k < count ? p[k] : 0.0f;
    }
    return x;
}

__device__ inline void store_four(float* p, const Four& x, uint32_t count) {
    if (count == 4 && (uint64_t)p % 16 == 0) {
        *(float4*)p = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    } else {
        for (int k = 0; k < 4; k++)
            if (k < count) p[k] = x.v[k];
    }
}

__device__ inline Four load_four(const bf16* p, uint32_t count) {
    Four x;
    if (count == 4 && (uint64_t)p % 8 == 0) {
        const uint2 q = *(const uint2*)p;
        x.v[0] = __uint_as_float(q.x << 16), x.v[1] = __uint_as_float(q.x & 0xffff0000u);
        x.v[2] = __uint_as_float(q.y << 16), x.v[3] = __uint_as_float(q.y & 0xffff0000u);
    } else {
        for (int k = 0; k < 4; k++) x.v[k] = k < count ? (float)p[k] : 0.0f;
    }
    return x;
}

// The bits of a pair, the first in the lower half, each rounded to nearest.
__device__ inline uint32_t pair(float first, float second) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
    return *(const uint32_t*)&both;
}

__device__ inline void store_four(bf16* p, const Four& x, uint32_t count) {
    if (count == 4 && (uint64_t)p % 8 == 0) {
        *(uint2*)p = make_uint2(pair(x.v[0], x.v[1]), pair(x.v[2], x.v[3]));
    } else {
        for (int k = 0; k < 4; k++)
            if (k < count) p[k] = x.v[k];
    }
}

// Calls body(index of the first, elements that exist) for each four of `n` elements: a grid-stride loop.
template <class Body> __device__ inline void for_each_four(uint64_t n, Body body) {
    for_elements(i, (n + 3) / 4) body(4 * i, (uint32_t)min(n - 4 * i, (uint64_t)4));
}
