// Exclusive sums of counts: where the items of each place begin.
//
// Three launches and no waiting between blocks: sums of tiles of 1,024 counts, exclusive sums of those by one block, then
// each tile once more with its start. The order is that of memory; integers make any order exact. Bytes: counts are read
// twice and written once, 12 a count; sums of tiles are 64 bits wide, so that a total beyond 2³² is seen.
// A faster one would look back at the tiles before it in one launch (Merrill and Garland 2016), which blocks that are not
// all in flight cannot do.

#include "scan.cuh"

constexpr int TILE = 1024; // counts of a tile: four a thread

// sums[tile] = Σ counts of the tile. A block a tile.
extern "C" __global__ void __launch_bounds__(THREADS) scan_tiles(const uint32_t* counts, uint64_t* sums, uint64_t n) {
    uint64_t sum = 0;
    for (int k = 0; k < TILE / THREADS; k++) {
        const uint64_t i = (uint64_t)blockIdx.x * TILE + k * THREADS + threadIdx.x;
        if (i < n) sum += counts[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// sums becomes its exclusive sums; sums[tiles] the total. One block.
extern "C" __global__ void __launch_bounds__(THREADS) scan_sums(uint64_t* sums, uint64_t tiles) {
    uint64_t start = 0;
    for (uint64_t first = 0; first < tiles; first += THREADS) {
        const uint64_t i = first + threadIdx.x;
        const uint64_t value = i < tiles ? sums[i] : 0;
        uint64_t total;
        const uint64_t before = block_exclusive(value, &total);
        if (i < tiles) sums[i] = start + before;
        start += total;
    }
    if (threadIdx.x == 0) sums[tiles] = start;
}

// counts becomes its exclusive sums, modulo 2³². A block a tile.
extern "C" __global__ void __launch_bounds__(THREADS) scan_apply(uint32_t* counts, const uint64_t* sums, uint64_t n) {
    constexpr int EACH = TILE / THREADS;
    const uint64_t first = (uint64_t)blockIdx.x * TILE + threadIdx.x * EACH;
    uint32_t own[EACH], sum = 0, total;
    for (int k = 0; k < EACH; k++) {
        own[k] = first + k < n ? counts[first + k] : 0;
        sum += own[k];
    }
    uint32_t start = (uint32_t)sums[blockIdx.x] + block_exclusive(sum, &total);
    for (int k = 0; k < EACH; k++) {
        if (first + k < n) counts[first + k] = start;
        start += own[k];
    }
}
