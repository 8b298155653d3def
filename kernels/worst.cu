// The k largest of n losses, for bootstrapping: a radix selection, then their sum or their gradients.
//
// Floats become unsigned keys of the same order (NaN of either sign is the largest). Three passes take eleven, eleven and ten
// bits, the highest first: every block counts the digits of the keys that still match into 2048 bins, with integer atomics,
// whose result does not depend on their order; the last block (last_block.cuh) finds the bin that holds the k-th largest and leaves
// the bins zero for the next pass. The first pass also makes the losses. What is left is the k-th key and how many of those
// equal to it count; of equals the first in memory do.
//
// Moves 12 bytes an element in the first pass, 4 in each other, from the cache where the losses fit there (a million fill
// 4 MiB).

#include "loss.cuh"

constexpr int BINS = 1 << 11;

// Elements of a block: `CHUNK` in src/ops/loss/cuda.rs.
constexpr uint64_t CHUNK = 1 << 12;

// What a selection knows.
struct State {
    uint64_t rank;   // the element sought is the rank-th largest (from 1) of those that match
    uint32_t prefix; // the digits found so far, in place
    uint32_t unused;
};

__device__ inline uint32_t key_of(float x) {
    const uint32_t bits = isnan(x) ? 0x7fffffffu : __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline float of_key(uint32_t key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// One pass: the digits that a block's keys have, then the state after it. All threads must take part.
struct Digits {
    unsigned long long* counts; // [BINS], zero before and after
    State* state;
    uint32_t* tickets;

    // Adds the block's counts; the last block finds the bin, whose digit begins at bit `shift`.
    __device__ void settle(const uint32_t* bins, const State& before, int shift) const {
        constexpr int EACH = BINS / THREADS;
        __shared__ unsigned long long sums[THREADS];
        __syncthreads();
        for (int bin = threadIdx.x; bin < BINS; bin += THREADS)
            if (bins[bin] > 0) atomicAdd(&counts[bin], (unsigned long long)bins[bin]);
        if (!last_to_arrive(tickets, gridDim.x)) return;
        // Sums from the highest bin down; a thread has EACH bins side by side.
        const int highest = BINS - 1 - EACH * (int)threadIdx.x;
        unsigned long long own[EACH], all = 0;
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            own[k] = fresh(counts + highest - k);
            all += own[k];
            counts[highest - k] = 0;
        }
        sums[threadIdx.x] = all;
        __syncthreads();
        for (int offset = 1; offset < THREADS; offset *= 2) {
            const unsigned long long lower = threadIdx.x >= offset ? sums[threadIdx.x - offset] : 0;
            __syncthreads();
            sums[threadIdx.x] += lower;
            __syncthreads();
        }
        unsigned long long above = sums[threadIdx.x] - all;
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            if (above < before.rank && above + own[k] >= before.rank)
                *state = {before.rank - above, before.prefix | (uint32_t)(highest - k) << shift, 0};
            above += own[k];
        }
    }
};

__device__ inline void clear(uint32_t* bins) {
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) bins[bin] = 0;
    __syncthreads();
}

// losses [n] of x and label [n], and the first pass of the search for the `kept`-th largest.
extern "C" __global__ void __launch_bounds__(THREADS)
    worst_losses(const float* x, const float* label, uint64_t n, Binary options, float* losses, uint64_t kept, Digits digits) {
    __shared__ uint32_t bins[BINS];
    clear(bins);
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        const Four v = load_four(x + at, count), y = load_four(label + at, count);
        Four loss;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            loss.v[k] = binary(options, v.v[k], y.v[k]).value;
            if (k < count) atomicAdd(&bins[key_of(loss.v[k]) >> 21], 1);
        }
        store_four(losses + at, loss, count);
    });
    digits.settle(bins, {kept, 0, 0}, 21);
}

// The second (`shift` 10) and the last pass (0).
extern "C" __global__ void __launch_bounds__(THREADS)
    worst_count(const float* losses, uint64_t n, int shift, Digits digits) {
    __shared__ uint32_t bins[BINS];
    const State before = *digits.state;
    const uint32_t known = 0xffffffffu << (shift == 0 ? 10 : 21), mask = shift == 0 ? (1u << 10) - 1 : BINS - 1;
    clear(bins);
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        const Four loss = load_four(losses + at, count);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t key = key_of(loss.v[k]);
            if (k < count && (key & known) == before.prefix) atomicAdd(&bins[key >> shift & mask], 1);
        }
    });
    digits.settle(bins, before, shift);
}

// out[0] = mean of the chosen.
extern "C" __global__ void __launch_bounds__(THREADS)
    worst_sum(const float* losses, uint64_t n, const State* found, Mean mean) {
    const State state = *found;
    double sum = 0.0;
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        const Four loss = load_four(losses + at, count);
#pragma unroll
        for (int k = 0; k < 4; k++) sum += k < count && key_of(loss.v[k]) > state.prefix ? loss.v[k] : 0.0f;
    });
    if (blockIdx.x == 0 && threadIdx.x == 0) sum += (double)state.rank * of_key(state.prefix);
    mean.write(sum);
}

// Elements of each chunk that equal the k-th: ties [chunks].
extern "C" __global__ void __launch_bounds__(THREADS)
    worst_ties(const float* losses, uint64_t n, const State* found, uint32_t* ties) {
    const State state = *found;
    int count = 0;
    for (uint64_t start = 0; start < CHUNK; start += THREADS) {
        const uint64_t i = blockIdx.x * CHUNK + start + threadIdx.x;
        count += __syncthreads_count(i < n && key_of(losses[i]) == state.prefix);
    }
    if (threadIdx.x == 0) ties[blockIdx.x] = count;
}

// dx [n] (+)= dy/kept·slope where chosen, 0 elsewhere; x and label [n] as in loss.cu. One chunk a block.
extern "C" __global__ void __launch_bounds__(THREADS)
    worst_gradients(const float* losses, const float* x, const float* label, const float* dy, uint64_t n, Binary options,
                    uint64_t kept, const State* found, const uint32_t* ties, float* dx, uint32_t accumulate) {
    __shared__ uint32_t of_warps[THREADS / WARP];
    const float scale = *dy / (float)kept;
    const State state = *found;
    unsigned long long before = 0;
    for (uint32_t chunk = threadIdx.x; chunk < blockIdx.x; chunk += THREADS) before += ties[chunk];
    before = block_sum(before);
    const uint32_t warp = threadIdx.x / WARP, lanes_below = (1u << threadIdx.x % WARP) - 1;
    for (uint64_t start = 0; start < CHUNK; start += THREADS) {
        const uint64_t i = blockIdx.x * CHUNK + start + threadIdx.x;
        const uint32_t key = i < n ? key_of(losses[i]) : 0;
        const bool tie = i < n && key == state.prefix;
        const uint32_t in_warp = __ballot_sync(ALL_LANES, tie);
        if (threadIdx.x % WARP == 0) of_warps[warp] = __popc(in_warp);
        __syncthreads();
        unsigned long long place = before + __popc(in_warp & lanes_below);
        for (uint32_t w = 0; w < THREADS / WARP; w++) {
            if (w < warp) place += of_warps[w];
            before += of_warps[w];
        }
        __syncthreads();
        const bool chosen = key > state.prefix || (tie && place < state.rank);
        if (i < n) put(dx + i, chosen ? scale * binary(options, x[i], label[i]).slope : 0.0f, accumulate);
    }
}
