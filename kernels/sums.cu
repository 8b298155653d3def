// Sums over splits and over rows, of a fixed shape, in f64.
//
// Bound by memory: each kernel reads every element once, 4 bytes and one f64 addition, side by side along the channels.
// A faster way is none of these: the last block of a product would add its splits itself, for a counter a tile.

#include "last_block.cuh"

// A bias's gradient of the splits of a weight's: y `[items, outputs]` (+)= Σ_split parts `[items, splits, outputs]`.
struct Beside {
    float* y;
    uint32_t items, splits;
    uint64_t accumulate;
};

// y `[rows, columns]`, rows `pitch` apart, (+)= Σ_split parts `[splits, rows, columns]` + bias `[rows / rows_per_bias, columns]`.
// The parts of what is made `beside` come behind these.
extern "C" __global__ void KERNEL(sum_splits)(
    const float* parts, uint32_t splits, uint64_t rows, uint32_t columns, real* y, uint64_t pitch, const float* bias,
    uint64_t rows_per_bias, uint32_t accumulate, Beside beside) {
    const uint64_t n = rows * columns;
    for_elements(i, n + beside.items * rows) {
        if (i >= n) {
            const uint64_t item = (i - n) / rows, output = (i - n) % rows;
            const float* own = parts + splits * n + item * beside.splits * rows + output;
            double sum = 0.0;
            for (uint32_t split = 0; split < beside.splits; split++) sum += own[split * rows];
            put(&beside.y[i - n], (float)sum, beside.accumulate != 0);
            continue;
        }
        const uint64_t row = i / columns, column = i % columns;
        double sum = bias == nullptr ? 0.0 : bias[row / rows_per_bias * columns + column];
        for (uint32_t split = 0; split < splits; split++) sum += parts[split * n + i];
        put(&y[row * pitch + column], (float)sum, accumulate);
    }
}

#ifndef BF16 // f32 in every precision
constexpr uint32_t SIDE_BY_SIDE = 32; // outputs of a block of `sum_weight_splits`, and the rest of it
constexpr uint32_t RUN = THREADS / SIDE_BY_SIDE; // `RUN` in src/ops/cuda/gemm.rs

// dW `[outputs, inputs, taps]` (+)= Σ_split parts `[splits, taps, inputs, outputs]`: a block 32 outputs of 8 neighbours of dW,
// turned over in shared memory, so that both sides are moved in whole sectors. Grid (runs, tiles of outputs).
extern "C" __global__ void __launch_bounds__(THREADS) sum_weight_splits(
    const float* parts, uint32_t splits, uint32_t taps, uint32_t inputs, uint32_t outputs, float* dw, uint32_t accumulate) {
    __shared__ float tile[SIDE_BY_SIDE][RUN + 1];
    const uint32_t run = inputs * taps, first = blockIdx.x * RUN, first_output = blockIdx.y * SIDE_BY_SIDE;
    const uint64_t n = (uint64_t)run * outputs;
    const uint32_t from = first + threadIdx.x / SIDE_BY_SIDE, output = first_output + threadIdx.x % SIDE_BY_SIDE;
    if (from < run && output < outputs) {
        const float* part = parts + ((uint64_t)(from % taps) * inputs + from / taps) * outputs + output;
        double sum = 0.0;
        for (uint32_t split = 0; split < splits; split++) sum += part[split * n];
        tile[threadIdx.x % SIDE_BY_SIDE][threadIdx.x / SIDE_BY_SIDE] = (float)sum;
    }
    __syncthreads();
    const uint32_t row = threadIdx.x / RUN, at = threadIdx.x % RUN;
    if (first + at < run && first_output + row < outputs)
        put(&dw[(uint64_t)(first_output + row) * run + first + at], tile[row][at], accumulate);
}
#endif

// y `[items, columns]` (+)= Σ over the rows of x `[items, rows, columns]`; parts `[items, pieces, columns]` is scratch.
//
// Grid (pieces, items, blocks of 256 columns), 256 threads: as many rows at a time as fit, each thread always at the same
// column. With more columns than threads a block takes 256 of them. The last block of an item and its columns adds the pieces.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL(column_sums)(
    const real* x, uint64_t rows, uint32_t columns, uint64_t piece, float* parts, float* y, uint32_t accumulate,
    uint32_t* tickets) {
    __shared__ double sums[THREADS];
    const uint32_t first = blockIdx.z * THREADS, width = min(columns - first, (uint32_t)THREADS);
    const uint32_t lines = THREADS / width, line = threadIdx.x / width, column = threadIdx.x % width;
    // Sum of a column over the lines' shares, in the threads of line 0.
    const auto over_lines = [&](double sum) {
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (line == 0)
            for (uint32_t i = 1; i < lines; i++) sum += sums[i * width + column];
        return sum;
    };
    const uint64_t begin = blockIdx.x * piece, end = min(begin + piece, rows);
    x += blockIdx.y * rows * columns + first + column;
    double sum = 0.0;
    if (line < lines)
        for (uint64_t row = begin + line; row < end; row += lines) sum += (float)x[row * columns];
    sum = over_lines(sum);
    float* const own = parts + (uint64_t)blockIdx.y * gridDim.x * columns + first + column;
    if (line == 0) own[(uint64_t)blockIdx.x * columns] = (float)sum;
    if (!last_to_arrive(tickets + blockIdx.z * gridDim.y + blockIdx.y, gridDim.x)) return;
    sum = 0.0;
    if (line < lines)
        for (uint32_t i = line; i < gridDim.x; i += lines) sum += fresh(own + (uint64_t)i * columns);
    sum = over_lines(sum);
    if (line == 0) put(&y[blockIdx.y * columns + first + column], (float)sum, accumulate);
}
