// Linear layers of a few rows: scale and shift of a norm from a latent, one row a volume. A launch each way where products in
// tiles with splits of k would take eight.
//
//   forward   y = x·Wᵀ + b: a warp an output, its lanes along the features, eight rows at a time
//   backward  dW = dyᵀ·x and db = Σ dy: a block an output; dx = dy·W: a block 32 features of eight rows, the outputs in eight
//             shares. Grid (blocks of dW, then blocks of dx)
//
// FLOPs 2·rows·features·outputs each of the three. Every weight is read, every gradient written once for each eight rows: bound
// by the weights' bytes. Sums: forward a lane adds features/32 terms, lanes pairwise; dx a thread outputs/8, shares pairwise.

#include "common.cuh"

constexpr uint32_t ROWS = 8;   // at a time
constexpr uint32_t SHARES = THREADS / WARP;

struct Layer {
    uint32_t rows, features, outputs;
    uint32_t stride;        // between rows of the weight
    uint32_t rows_per_bias;
};

// `weight` with its first column added; bias `[rows / rows_per_bias, outputs]` or null.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_few(const float* x, const float* weight, const float* bias, float* y, Layer of) {
    const uint32_t lane = threadIdx.x % WARP, output = blockIdx.x * SHARES + threadIdx.x / WARP;
    if (output >= of.outputs) return;
    weight += (uint64_t)output * of.stride;
    for (uint32_t first = 0; first < of.rows; first += ROWS) {
        const float* rows = x + (uint64_t)first * of.features;
        const uint32_t count = min(ROWS, of.rows - first);
        float sums[ROWS] = {};
        for (uint32_t f = lane; f < of.features; f += WARP) {
            const float w = weight[f];
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++)
                if (r < count) sums[r] = fmaf(rows[(uint64_t)r * of.features + f], w, sums[r]);
        }
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++) {
            const float sum = warp_sum(sums[r]);
            const uint64_t row = first + r;
            if (lane == 0 && r < count)
                y[row * of.outputs + output] = sum + (bias ? bias[row / of.rows_per_bias * of.outputs + output] : 0.0f);
        }
    }
}

// A gradient to be written or added to; null: not wanted.
struct Target {
    float* data;
    uint64_t accumulate;

    __device__ void write(uint64_t i, float value) const { put(data + i, value, accumulate != 0); }
};

// Row `output` of dW, whose first column is added, and of db.
__device__ inline void weights(const float* x, const float* dy, const Target& dw, const Target& db, const Layer& of, uint32_t output) {
    if (dw.data)
        for (uint32_t f = threadIdx.x; f < of.features; f += THREADS) {
            float sum = 0.0f;
            for (uint32_t row = 0; row < of.rows; row++)
                sum = fmaf(dy[(uint64_t)row * of.outputs + output], x[(uint64_t)row * of.features + f], sum);
            dw.write((uint64_t)output * of.stride + f, sum);
        }
    if (db.data)
        for (uint32_t item = threadIdx.x; item < of.rows / of.rows_per_bias; item += THREADS) {
            float sum = 0.0f;
            for (uint32_t row = item * of.rows_per_bias; row < (item + 1) * of.rows_per_bias; row++)
                sum += dy[(uint64_t)row * of.outputs + output];
            db.write((uint64_t)item * of.outputs + output, sum);
        }
}

// Features first_feature … + 31 of rows first … + 7 of dx.
__device__ inline void inputs(const float* weight, const float* dy, const Target& dx, const Layer& of, uint32_t first, uint32_t feature) {
    __shared__ float parts[SHARES][ROWS][WARP];
    const uint32_t lane = threadIdx.x % WARP, share = threadIdx.x / WARP, count = min(ROWS, of.rows - first);
    dy += (uint64_t)first * of.outputs;
    float sums[ROWS] = {};
    if (feature + lane < of.features)
        for (uint32_t output = share; output < of.outputs; output += SHARES) {
            const float w = weight[(uint64_t)output * of.stride + feature + lane];
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++)
                if (r < count) sums[r] = fmaf(dy[(uint64_t)r * of.outputs + output], w, sums[r]);
        }
#pragma unroll
    for (uint32_t r = 0; r < ROWS; r++) parts[share][r][lane] = sums[r];
    __syncthreads();
    // A warp a row.
    static_assert(SHARES == ROWS && SHARES == 8);
    const float sum = ((parts[0][share][lane] + parts[1][share][lane]) + (parts[2][share][lane] + parts[3][share][lane])) +
                      ((parts[4][share][lane] + parts[5][share][lane]) + (parts[6][share][lane] + parts[7][share][lane]));
    if (share < count && feature + lane < of.features) dx.write((uint64_t)(first + share) * of.features + feature + lane, sum);
}

// Blocks below `of_weights` make dW and db.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_few_backward(const float* x, const float* weight, const float* dy, Target dx, Target dw, Target db, Layer of,
                        uint32_t of_weights) {
    if (blockIdx.x < of_weights) {
        weights(x, dy, dw, db, of, blockIdx.x);
        return;
    }
    const uint32_t block = blockIdx.x - of_weights, tiles = (of.features + WARP - 1) / WARP;
    inputs(weight, dy, dx, of, block / tiles * ROWS, block % tiles * WARP);
}
