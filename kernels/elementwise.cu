// Sums of tensors, and what the engine does to buffers between ops.
//
// Every kernel is a grid-stride loop, one element a thread and turn: bound by memory, 4 to 12 bytes an element. A faster one
// would load four elements at once where the length allows.

#include "common.cuh"

// a ← a + b. 12 bytes and 1 FLOP an element.
extern "C" __global__ void add_in_place(float* a, const float* b, uint64_t n) {
    for_elements(i, n) a[i] += b[i];
}

// y ← a + factor·b. 12 bytes and 2 FLOPs an element.
extern "C" __global__ void add_scaled(const float* a, const float* b, float factor, float* y, uint64_t n) {
    for_elements(i, n) y[i] = a[i] + factor * b[i];
}

// y (+)= factor·x. 8 bytes (12 if added to) and 1 FLOP an element.
extern "C" __global__ void scale(const float* x, float factor, float* y, uint64_t n, uint32_t accumulate) {
    for_elements(i, n) put(&y[i], factor * x[i], accumulate);
}

// running ← running + momentum·(new − running): means in the first half, variances (made unbiased) in the second.
// 24 bytes a group.
extern "C" __global__ void update_running(
    float* running, const float* statistics, uint32_t groups, float unbiased, float momentum) {
    for_elements(i, 2 * groups) {
        const float now = i < groups ? statistics[i] : statistics[i] * unbiased;
        running[i] += momentum * (now - running[i]);
    }
}

// flag ← 1 if an element of x [n] is NaN or infinite; else it stays. 4 bytes an element.
extern "C" __global__ void find_not_finite(const float* x, uint64_t n, uint32_t* flag) {
    bool found = false;
    for_elements(i, n) found |= !isfinite(x[i]);
    if (__any_sync(ALL_LANES, found) && threadIdx.x % WARP == 0) atomicOr(flag, 1u);
}
