// What is done to all weights or gradients together, in one launch whatever their number: averages, norms, scaling.
//
// Tensors by multi_tensor.cuh, 16 bytes a thread and access. Moves, an element: 12 bytes (average), 4 (squares), 8 (scale).
//
// A faster one would be part of the optimiser's step, which has the weights in registers.

#include "last_block.cuh"
#include "multi_tensor.cuh"

struct Entry {
    float* data;        // [length]
    const float* other; // [length], or null
    uint64_t length;
    uint64_t first_block;
};

struct Tensors {
    Entry entries[TENSORS];
    const float* guard; // of averages: null, or [1]; unless it is finite nothing is done
    uint32_t count;
    float factor;

    // The tensor of this block.
    __device__ Entry own() const { return entries[own_tensor(entries, count)]; }
};

// Calls body(index of the first, elements that exist) for each four of this block's chunk. Bodies that store copy what they
// use: the compiler splits 16-byte stores where something that it refers to might change.
template <class Body> __device__ inline void for_chunk(const Entry entry, Body body) {
    const uint64_t start = (blockIdx.x - entry.first_block) * CHUNK, end = min(start + CHUNK, entry.length);
    for (uint64_t at = start + 4 * threadIdx.x; at < end; at += 4 * THREADS) body(at, (uint32_t)min(end - at, (uint64_t)4));
}

// data ← data + factor·(other − data)
extern "C" __global__ void __launch_bounds__(THREADS) tensors_average(const __grid_constant__ Tensors tensors) {
    if (tensors.guard != nullptr && !isfinite(*tensors.guard)) return;
    const Entry own = tensors.own();
    const float factor = tensors.factor;
    for_chunk(own, [=](uint64_t at, uint32_t count) {
        Four value = load_four(own.data + at, count);
        const Four other = load_four(own.other + at, count);
        // Rounded as on the CPU.
        for (int k = 0; k < 4; k++)
            value.v[k] = __fadd_rn(value.v[k], __fmul_rn(factor, other.v[k] - value.v[k]));
        store_four(own.data + at, value, count);
    });
}

// data ← factor·data
extern "C" __global__ void __launch_bounds__(THREADS) tensors_scale(const __grid_constant__ Tensors tensors) {
    const Entry own = tensors.own();
    const float factor = tensors.factor;
    for_chunk(own, [=](uint64_t at, uint32_t count) {
        Four value = load_four(own.data + at, count);
        for (int k = 0; k < 4; k++) value.v[k] *= factor;
        store_four(own.data + at, value, count);
    });
}

// squares [count] ← Σ data² of each tensor; partials [blocks] is scratch. The last block adds each tensor's blocks, a warp a
// tensor.
extern "C" __global__ void __launch_bounds__(THREADS)
    tensors_squares(const __grid_constant__ Tensors tensors, double* partials, double* squares, uint32_t* tickets) {
    const Entry own = tensors.own();
    double sum = 0.0;
    for_chunk(own, [&](uint64_t at, uint32_t count) {
        const Four value = load_four(own.data + at, count);
        for (int k = 0; k < 4; k++) sum += (double)value.v[k] * value.v[k];
    });
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
    if (!last_to_arrive(tickets, gridDim.x)) return;
    for (uint32_t tensor = threadIdx.x / WARP; tensor < tensors.count; tensor += THREADS / WARP) {
        const uint64_t end = tensor + 1 < tensors.count ? tensors.entries[tensor + 1].first_block : gridDim.x;
        double all = 0.0;
        for (uint64_t block = tensors.entries[tensor].first_block + threadIdx.x % WARP; block < end; block += WARP)
            all += fresh(partials + block);
        all = warp_sum(all);
        if (threadIdx.x % WARP == 0) squares[tensor] = all;
    }
}
