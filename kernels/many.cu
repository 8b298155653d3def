// What is done to many tensors at once: squares summed, all cleared, scaled, all moved towards others.
//
// The tensors come as a table in the kernel's parameters, so nothing is copied to the device and one launch does them all. A
// block handles CHUNK elements of one tensor, 16 bytes a thread and access; it finds its tensor by bisection.
//
// Compulsory bytes an element: 4 (squares, zero), 8 (scale), 12 (approach); 2 FLOPs. A faster one would be part of the optimiser's
// step.

#include "four.cuh"

constexpr int TENSORS = 512;        // `TENSORS` in src/ops/many/cuda.rs
constexpr uint64_t CHUNK = 1 << 12; // `CHUNK` in src/ops/many/cuda.rs

// The twin of `Entry` in src/ops/many/cuda.rs.
struct Entry {
    float* target;      // [length], changed
    const float* other; // [length], read
    uint64_t length;
    uint32_t first_block;
    uint32_t unused;
};

struct Table {
    Entry entries[TENSORS];
    uint32_t count;
};

// Calls body(entry, index of the first, elements that exist) for each four of this block's elements.
template <class Body> __device__ void for_each_four_of(const Table& table, Body body) {
    uint32_t low = 0, high = table.count;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (table.entries[middle].first_block <= blockIdx.x) low = middle;
        else high = middle;
    }
    const Entry& entry = table.entries[low];
    const uint64_t start = (uint64_t)(blockIdx.x - entry.first_block) * CHUNK, end = min(start + CHUNK, entry.length);
    for (uint64_t at = start + 4 * threadIdx.x; at < end; at += 4 * THREADS)
        body(entry, at, (uint32_t)min(end - at, (uint64_t)4));
}

// sums [blocks] ← Σ other² over each block's elements, in f64.
extern "C" __global__ void __launch_bounds__(THREADS) many_squares(const __grid_constant__ Table table, double* sums) {
    double sum = 0.0;
    for_each_four_of(table, [&](const Entry& entry, uint64_t at, uint32_t count) {
        const Four x = load_four(entry.other + at, count);
        for (int k = 0; k < 4; k++) sum += (double)x.v[k] * x.v[k];
    });
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// target ← 0.
extern "C" __global__ void __launch_bounds__(THREADS) many_zero(const __grid_constant__ Table table) {
    for_each_four_of(table, [&](const Entry& entry, uint64_t at, uint32_t count) {
        store_four(entry.target + at, Four{}, count);
    });
}

// target ← factor·target.
extern "C" __global__ void __launch_bounds__(THREADS) many_scale(const __grid_constant__ Table table, float factor) {
    for_each_four_of(table, [&](const Entry& entry, uint64_t at, uint32_t count) {
        Four x = load_four(entry.target + at, count);
        for (int k = 0; k < 4; k++) x.v[k] *= factor;
        store_four(entry.target + at, x, count);
    });
}

// target ← target + share·(other − target), rounded after each operation as on the CPU.
extern "C" __global__ void __launch_bounds__(THREADS) many_approach(const __grid_constant__ Table table, float share) {
    for_each_four_of(table, [&](const Entry& entry, uint64_t at, uint32_t count) {
        Four x = load_four(entry.target + at, count);
        const Four goal = load_four(entry.other + at, count);
        for (int k = 0; k < 4; k++) x.v[k] = __fadd_rn(x.v[k], __fmul_rn(share, goal.v[k] - x.v[k]));
        store_four(entry.target + at, x, count);
    });
}
