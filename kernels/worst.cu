// The k largest of n losses, for bootstrapping: a radix selection, then their sum or their gradients.
//
// Floats become unsigned keys of the same order (NaN of either sign is the largest). Four passes take eight bits each, the highest
// first: every block counts the digits of the keys that still match into 256 bins, with integer atomics, whose result does
// not depend on their order. Before that each block finds the bin that holds the k-th largest from the last pass's counts.
// What is left is the k-th key and how many of those equal to it count; of equals the first in memory do.
//
// Moves 4 bytes an element and pass, from the cache where the losses fit there (a million fill 4 MiB). A faster one would
// count eleven bits a pass.

#include "loss.cuh"

constexpr int BINS = 256;
constexpr int PASSES = 4;

// Elements of a block: `CHUNK` in src/ops/loss/cuda.rs.
constexpr uint64_t CHUNK = 1 << 12;

// What a selection knows: [PASSES + 1] states, each made from the one before and the counts [PASSES, BINS].
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

// The state after `pass` passes, the same in all threads; block 0 leaves it for the next. All threads must take part.
__device__ inline State advance(State* states, const unsigned long long* counts, int pass, uint64_t kept) {
    __shared__ unsigned long long sums[BINS];
    __shared__ State found;
    if (pass == 0) return {kept, 0, 0};
    State before = {kept, 0, 0};
    if (pass > 1) before = states[pass - 1];
    // Inclusive sums from the highest bin down.
    const uint32_t bin = BINS - 1 - threadIdx.x;
    const uint64_t own = counts[(pass - 1) * BINS + bin];
    sums[threadIdx.x] = own;
    __syncthreads();
    for (int offset = 1; offset < BINS; offset *= 2) {
        const uint64_t lower = threadIdx.x >= offset ? sums[threadIdx.x - offset] : 0;
        __syncthreads();
        sums[threadIdx.x] += lower;
        __syncthreads();
    }
    const uint64_t upto = sums[threadIdx.x];
    if (upto >= before.rank && upto - own < before.rank) {
        found = {before.rank - (upto - own), before.prefix | bin << (32 - 8 * pass), 0};
        if (blockIdx.x == 0) states[pass] = found;
    }
    __syncthreads();
    return found;
}

// Digits that `pass` passes have found.
__device__ inline uint32_t known_bits(int pass) { return pass == 0 ? 0 : 0xffffffffu << (32 - 8 * pass); }

// Pass `pass` (0 to 3): counts its digit.
extern "C" __global__ void __launch_bounds__(BINS)
    worst_count(const float* losses, uint64_t n, uint64_t kept, int pass, State* states, unsigned long long* counts) {
    __shared__ uint32_t bins[BINS];
    bins[threadIdx.x] = 0;
    const State state = advance(states, counts, pass, kept);
    __syncthreads();
    for_elements(i, n) {
        const uint32_t key = key_of(losses[i]);
        if ((key & known_bits(pass)) == state.prefix) atomicAdd(&bins[key >> (24 - 8 * pass) & 255], 1);
    }
    __syncthreads();
    if (bins[threadIdx.x] > 0)
        atomicAdd(&counts[pass * BINS + threadIdx.x], (unsigned long long)bins[threadIdx.x]);
}

// out[0] = mean of the chosen.
extern "C" __global__ void __launch_bounds__(BINS)
    worst_sum(const float* losses, uint64_t n, uint64_t kept, State* states, const unsigned long long* counts,
              Mean mean) {
    const State state = advance(states, counts, PASSES, kept);
    double sum = 0.0;
    for_elements(i, n) {
        const float loss = losses[i];
        if (key_of(loss) > state.prefix) sum += loss;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) sum += (double)state.rank * of_key(state.prefix);
    mean.write(sum);
}

// Elements of each chunk that equal the k-th: ties [chunks].
extern "C" __global__ void __launch_bounds__(BINS)
    worst_ties(const float* losses, uint64_t n, uint64_t kept, State* states, const unsigned long long* counts,
               uint32_t* ties) {
    const State state = advance(states, counts, PASSES, kept);
    int count = 0;
    for (uint64_t start = 0; start < CHUNK; start += BINS) {
        const uint64_t i = blockIdx.x * CHUNK + start + threadIdx.x;
        count += __syncthreads_count(i < n && key_of(losses[i]) == state.prefix);
    }
    if (threadIdx.x == 0) ties[blockIdx.x] = count;
}

// dx [n] (+)= dy/kept·slope where chosen, 0 elsewhere; x and label [n] as in loss.cu. One chunk a block.
extern "C" __global__ void __launch_bounds__(BINS)
    worst_gradients(const float* losses, const float* x, const float* label, const float* dy, uint64_t n, Binary options,
                    uint64_t kept, State* states, const unsigned long long* counts, const uint32_t* ties, float* dx,
                    uint32_t accumulate) {
    __shared__ uint32_t of_warps[BINS / WARP];
    const float scale = *dy / (float)kept;
    const State state = advance(states, counts, PASSES, kept);
    unsigned long long before = 0;
    for (uint32_t chunk = threadIdx.x; chunk < blockIdx.x; chunk += BINS) before += ties[chunk];
    before = block_sum(before);
    const uint32_t warp = threadIdx.x / WARP, lanes_below = (1u << threadIdx.x % WARP) - 1;
    for (uint64_t start = 0; start < CHUNK; start += BINS) {
        const uint64_t i = blockIdx.x * CHUNK + start + threadIdx.x;
        const uint32_t key = i < n ? key_of(losses[i]) : 0;
        const bool tie = i < n && key == state.prefix;
        const uint32_t in_warp = __ballot_sync(ALL_LANES, tie);
        if (threadIdx.x % WARP == 0) of_warps[warp] = __popc(in_warp);
        __syncthreads();
        unsigned long long place = before + __popc(in_warp & lanes_below);
        for (uint32_t w = 0; w < BINS / WARP; w++) {
            if (w < warp) place += of_warps[w];
            before += of_warps[w];
        }
        __syncthreads();
        const bool chosen = key > state.prefix || (tie && place < state.rank);
        if (i < n) put(dx + i, chosen ? scale * binary(options, x[i], label[i]).slope : 0.0f, accumulate);
    }
}
