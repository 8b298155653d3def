// Sums over splits and over rows, in two passes of a fixed shape, in f64.
//
// Bound by memory: each kernel reads every element once, 4 bytes and one f64 addition, side by side along the channels.
// A faster way is none of these: the last block of a product would add its splits itself, for a counter a tile.

#include "common.cuh"

// y `[rows, columns]`, rows `pitch` apart, (+)= Σ_split parts `[splits, rows, columns]` + bias `[rows / rows_per_bias, columns]`.
extern "C" __global__ void KERNEL(sum_splits)(
    const float* parts, uint32_t splits, uint64_t rows, uint32_t columns, real* y, uint64_t pitch, const float* bias,
    uint64_t rows_per_bias, uint32_t accumulate) {
    const uint64_t n = rows * columns;
    for_elements(i, n) {
        const uint64_t row = i / columns, column = i % columns;
        double sum = bias == nullptr ? 0.0 : bias[row / rows_per_bias * columns + column];
        for (uint32_t split = 0; split < splits; split++) sum += parts[split * n + i];
        put(&y[row * pitch + column], (float)sum, accumulate);
    }
}

#ifndef BF16 // f32 in every precision
// dW `[outputs, inputs, taps]` (+)= Σ_split parts `[splits, taps, inputs, outputs]`: read side by side, written apart.
extern "C" __global__ void sum_weight_splits(
    const float* parts, uint32_t splits, uint32_t taps, uint32_t inputs, uint32_t outputs, float* dw, uint32_t accumulate) {
    const uint64_t n = (uint64_t)taps * inputs * outputs;
    for_elements(i, n) {
        const uint64_t output = i % outputs, input = i / outputs % inputs, tap = i / outputs / inputs;
        double sum = 0.0;
        for (uint32_t split = 0; split < splits; split++) sum += parts[split * n + i];
        put(&dw[(output * inputs + input) * taps + tap], (float)sum, accumulate);
    }
}
#endif

// parts `[items, pieces, columns]` = Σ over the rows of a piece of x `[items, rows, columns]`.
//
// Grid (pieces, items, blocks of 256 columns), 256 threads: as many rows at a time as fit, each thread always at the same
// column. With more columns than threads a block takes 256 of them.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL(column_sums)(
    const real* x, uint64_t rows, uint32_t columns, uint64_t piece, float* parts) {
    __shared__ double sums[THREADS];
    const uint32_t first = blockIdx.z * THREADS, width = min(columns - first, (uint32_t)THREADS);
    const uint32_t lines = THREADS / width, line = threadIdx.x / width, column = threadIdx.x % width;
    const uint64_t begin = blockIdx.x * piece, end = min(begin + piece, rows);
    x += blockIdx.y * rows * columns + first + column;
    double sum = 0.0;
    if (line < lines)
        for (uint64_t row = begin + line; row < end; row += lines) sum += (float)x[row * columns];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x >= width) return;
    for (uint32_t i = 1; i < lines; i++) sum += sums[i * width + column];
    parts[((uint64_t)blockIdx.y * gridDim.x + blockIdx.x) * columns + first + column] = (float)sum;
}

#ifndef BF16 // f32 in every precision
// y `[items, columns]` (+)= Σ_piece parts `[items, pieces, columns]`: a warp an element.
extern "C" __global__ void column_totals(
    const float* parts, uint64_t items, uint32_t pieces, uint32_t columns, float* y, uint32_t accumulate) {
    const uint32_t lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    const uint64_t i = (uint64_t)blockIdx.x * warps + threadIdx.x / WARP;
    if (i >= items * columns) return;
    const float* from = parts + i / columns * pieces * columns + i % columns;
    double sum = 0.0;
    for (uint32_t piece = lane; piece < pieces; piece += WARP) sum += from[(uint64_t)piece * columns];
    sum = warp_sum(sum);
    if (lane == 0) put(&y[i], (float)sum, accumulate);
}
#endif
