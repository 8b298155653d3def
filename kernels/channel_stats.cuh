// Mean and biased variance of each column of what a product writes, taken while it writes: of a convolution's channels, over
// the whole batch or an item at a time.
//
// A warp takes the mean of the rows of a column that it holds, by way of their differences from the first, then the squares
// about it. A block joins its warps in f64 (Chan, Golub, LeVeque 1983), the last block of each group of tiles these, and the
// last of an item the groups (last_block.cuh): none reads more than it reads quickly. So the result is not read again: 4 bytes an
// element less (2 in bf16), and a launch. 12 bytes a column and tile written, and read; 5 FLOPs an element.
#pragma once

#include "last_block.cuh"

// Where the statistics go and how tiles are joined: the twin of `Channels` in src/ops/conv3d/channel_stats.rs. No `parts`: nowhere.
struct Channels {
    float* parts;      // [items][tiles + groups][3, columns]: mean, what its rounding left over, squares about it
    float* statistics; // [2, items · columns]: means, variances
    uint32_t* tickets; // [items][tiles of columns][1 + groups]
    uint32_t tiles;    // of rows, in an item, which has a whole number of them
    uint32_t group;    // tiles that one block joins
};

// Sum over the lanes that hold the same column: those STRIDE apart.
template <int STRIDE> __device__ inline float sum_of_column(float value) {
#pragma unroll
    for (int offset = WARP / 2; offset >= STRIDE; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

// Leaves in `part` [3][…] what a warp knows of column `n`, `rows` of which exist. A thread holds rows place(0), place(1), … of
// them; the column's first is the first of the lane below STRIDE.
template <int STRIDE, int R, int N, class Place>
__device__ inline void leave_column(float (*part)[N], uint32_t n, const float (&y)[R], uint32_t rows, Place place) {
    const uint32_t lane = threadIdx.x % WARP;
    const float first = __shfl_sync(ALL_LANES, y[0], lane % STRIDE);
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < R; i++) sum += place(i) < rows ? y[i] - first : 0.0f;
    sum = sum_of_column<STRIDE>(sum) / rows;
    const float mean = first + sum;
#pragma unroll
    for (int i = 0; i < R; i++) {
        const float off = place(i) < rows ? y[i] - mean : 0.0f;
        squares = fmaf(off, off, squares);
    }
    squares = sum_of_column<STRIDE>(squares);
    if (lane < STRIDE) part[0][n] = mean, part[1][n] = (first - mean) + sum, part[2][n] = squares;
}

// Parts of a column put together: sums about the mean of one of them.
struct Joint {
    double shift, total = 0.0, squares = 0.0;

    __device__ explicit Joint(double shift) : shift(shift) {}
    __device__ void add(double mean, float about, double rows) {
        const double off = mean - shift;
        total += rows * off, squares += about + rows * off * off;
    }
    __device__ double mean(double rows) const { return shift + total / rows; }
    __device__ double about(double rows) const { return fmax(squares - total * total / rows, 0.0); }
    // To `part`, its three numbers `pitch` apart.
    __device__ void leave(float* part, uint64_t pitch, double rows) const {
        const double exact = mean(rows);
        part[0] = (float)exact, part[pitch] = (float)(exact - (float)exact), part[2 * pitch] = (float)about(rows);
    }
};

// The statistics of a tile of M rows and N columns from those that its warps left, W above each other, HEIGHT rows each: leaves
// them, and joins all in the last block. `shared` holds the former, and then numbers of this. All threads must take part.
template <int THREADS, int N, int W, int HEIGHT>
__device__ inline void join_channels(const Channels& to, void* shared, uint32_t n0, uint32_t all_rows, uint32_t columns) {
    constexpr uint32_t M = W * HEIGHT, LANES = THREADS / N;
    const uint32_t tile = blockIdx.x % to.tiles, item = blockIdx.x / to.tiles, items = gridDim.x / to.tiles;
    const uint32_t rows = all_rows / items, groups = (to.tiles + to.group - 1) / to.group;
    const uint32_t n = n0 + threadIdx.x % N, lane = threadIdx.x / N;
    const bool exists = n < columns, writes = exists && lane == 0;
    const uint64_t size = 3 * (uint64_t)columns;
    float* const of_tiles = to.parts + item * (to.tiles + groups) * size + n;
    float* const of_groups = of_tiles + to.tiles * size;
    // Of `each` rows from a multiple of that on, those that exist.
    const auto rows_of = [&](uint32_t i, uint32_t each) { return min(rows - i * each, each); };

    __syncthreads(); // the warps' parts are there
    if (writes) {
        const auto parts = (const float (*)[3][N])shared;
        const uint32_t own = threadIdx.x, here = rows_of(tile, M);
        const auto mean = [&](int w) { return (double)parts[w][0][own] + parts[w][1][own]; };
        Joint joint(mean(0));
#pragma unroll
        for (int w = 0; w < W; w++)
            if (w * HEIGHT < here) joint.add(mean(w), parts[w][2][own], min(here - w * HEIGHT, (uint32_t)HEIGHT));
        joint.leave(of_tiles + tile * size, columns, here);
    }

    double(*const sums)[THREADS] = (double(*)[THREADS])shared;
    // Parts `first` … `end`, whole in the threads that write.
    const auto join = [&](const float* parts, uint32_t first, uint32_t end, uint32_t each) {
        const auto mean = [&](uint32_t i) { return (double)fresh(parts + i * size) + fresh(parts + i * size + columns); };
        Joint joint(exists ? mean(first) : 0.0);
        if (exists)
            for (uint32_t i = first + lane; i < end; i += LANES)
                joint.add(mean(i), fresh(parts + i * size + 2 * columns), rows_of(i, each));
        sums[0][threadIdx.x] = joint.total, sums[1][threadIdx.x] = joint.squares;
        __syncthreads();
        if (lane == 0)
            for (uint32_t other = threadIdx.x + N; other < THREADS; other += N)
                joint.total += sums[0][other], joint.squares += sums[1][other];
        return joint;
    };
    uint32_t* const tickets = to.tickets + (item * gridDim.y + blockIdx.y) * (1 + groups);
    const uint32_t group = tile / to.group, first = group * to.group, end = min(first + to.group, to.tiles);
    if (!last_to_arrive(tickets + 1 + group, end - first)) return;
    const Joint of_group = join(of_tiles, first, end, M);
    if (writes) of_group.leave(of_groups + group * size, columns, rows_of(group, M * to.group));
    if (!last_to_arrive(tickets, groups)) return;
    const Joint of_item = join(of_groups, 0, groups, M * to.group);
    if (!writes) return;
    float* const out = to.statistics + item * columns + n;
    out[0] = (float)of_item.mean(rows), out[items * columns] = (float)(of_item.about(rows) / rows);
}
