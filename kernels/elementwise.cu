// Sums of tensors, and what the engine does to buffers between ops.
//
// Element by element, 16 bytes a thread and access (8 in bf16), in a grid-stride loop: bound by memory, the bytes of 2 or 3
// elements each. A faster one would be part of the kernel that makes a term.

#include "vec4.cuh"

// a ← a + b. 12 bytes and 1 FLOP an element.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL(add_in_place)(real* a, const real* b, uint64_t n) {
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        Four sum = load_four(a + at, count);
        const Four other = load_four(b + at, count);
        for (int k = 0; k < 4; k++) sum.v[k] += other.v[k];
        store_four(a + at, sum, count);
    });
}

// y ← a + factor·b. 12 bytes and 2 FLOPs an element.
extern "C" __global__ void __launch_bounds__(THREADS)
    KERNEL(add_scaled)(const real* a, const real* b, float factor, real* y, uint64_t n) {
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        Four sum = load_four(a + at, count);
        const Four other = load_four(b + at, count);
        for (int k = 0; k < 4; k++) sum.v[k] = fmaf(factor, other.v[k], sum.v[k]);
        store_four(y + at, sum, count);
    });
}

// y (+)= factor·x. 8 bytes (12 if added to) and 1 FLOP an element.
extern "C" __global__ void __launch_bounds__(THREADS)
    KERNEL(scale)(const real* x, float factor, real* y, uint64_t n, uint32_t accumulate) {
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        const Four value = load_four(x + at, count);
        Four sum = accumulate ? load_four(y + at, count) : Four{};
        for (int k = 0; k < 4; k++) sum.v[k] = fmaf(factor, value.v[k], sum.v[k]);
        store_four(y + at, sum, count);
    });
}

#ifndef BF16 // f32 in every precision
// The running statistics of one normalisation: the twin of `Entry` in src/nn/running_stats.rs.
struct Running {
    float* running;          // [2, groups]: means, variances
    const float* statistics; // [2, groups], of a batch
    uint32_t groups;
    float unbiased; // makes a biased variance unbiased
    float momentum;
    uint32_t unused;
};

constexpr int MOST_RUNNING = 64; // `MOST` in src/nn/running_stats.rs

struct AllRunning {
    Running entries[MOST_RUNNING];
};

// running ← running + momentum·(new − running), a block a normalisation. 24 bytes a group. Nothing is done unless `guard` (null,
// or [1]) is finite.
extern "C" __global__ void __launch_bounds__(THREADS)
    update_running(const __grid_constant__ AllRunning all, const float* guard) {
    if (guard != nullptr && !isfinite(*guard)) return;
    const Running& of = all.entries[blockIdx.x];
    for (uint32_t i = threadIdx.x; i < 2 * of.groups; i += THREADS) {
        const float now = i < of.groups ? of.statistics[i] : of.statistics[i] * of.unbiased;
        of.running[i] += of.momentum * (now - of.running[i]);
    }
}

// What a kernel's arguments carry to the device: `SMALL` in src/device/cuda/mod.rs.
struct Bytes {
    uint32_t words[64];
};

// target [count] ← the first bytes of what came.
extern "C" __global__ void __launch_bounds__(THREADS)
    write_bytes(const __grid_constant__ Bytes from, uint32_t* target, uint32_t count) {
    const uint32_t i = threadIdx.x, whole = count / 4;
    if (i < whole) target[i] = from.words[i];
    // The bytes of a last word that is not whole are one thread's.
    if (i == whole)
        for (uint32_t k = 0; k < count % 4; k++) ((uint8_t*)(target + i))[k] = (uint8_t)(from.words[i] >> 8 * k);
}

// guard [1] ← NaN if loss [1] is not finite; else it stays.
extern "C" __global__ void __launch_bounds__(WARP) guard_loss(const float* loss, float* guard) {
    if (threadIdx.x == 0 && !isfinite(*loss)) *guard = NAN;
}

constexpr uint8_t IGNORED = 255; // `Labels::IGNORED` in src/data/volume.rs

__device__ inline float label(uint8_t byte) { return byte == IGNORED ? -1.0f : (float)byte; }

// Classes as losses take them of bytes [n]: −1 where nobody has looked. Four a thread; 5 bytes each.
extern "C" __global__ void __launch_bounds__(THREADS) widen_labels(const uint8_t* from, float* to, uint64_t n) {
    for_elements(i, n / 4) {
        const uchar4 four = ((const uchar4*)from)[i];
        ((float4*)to)[i] = make_float4(label(four.x), label(four.y), label(four.z), label(four.w));
    }
    const uint64_t rest = n / 4 * 4 + threadIdx.x;
    if (blockIdx.x == 0 && rest < n) to[rest] = label(from[rest]);
}
#endif

// flag ← 1 if an element of x [n] is NaN or infinite; else it stays. 4 bytes an element.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL(find_not_finite)(const real* x, uint64_t n, uint32_t* flag) {
    bool found = false;
    for_elements(i, n) found |= !isfinite((float)x[i]);
    if (__any_sync(ALL_LANES, found) && threadIdx.x % WARP == 0) atomicOr(flag, 1u);
}
