// Linear layers of a few rows, one or two of the same sizes and the same x: scale and shift of a norm from a latent, one row a
// volume. A launch each way where products in tiles with splits of k would take sixteen.
//
//   forward   y = x·Wᵀ + b: a warp an output, its lanes along the features, eight rows at a time. Grid (outputs, layers)
//   backward  dW = dyᵀ·x and db = Σ dy: a block an output; dx = Σ dy·W over the layers: a block 32 features of eight rows, the
//             outputs in eight shares. Grid (blocks of each layer's dW, then blocks of dx)
//
// FLOPs 2·rows·features·outputs each of the three and of each layer. Every weight is read, every gradient written once for each
// eight rows: bound by the weights' bytes. Sums: forward a lane adds features/32 terms, lanes pairwise; dx a thread outputs/8 of
// each layer, shares pairwise.

#include "common.cuh"

constexpr uint32_t ROWS = 8;   // at a time
constexpr uint32_t SHARES = THREADS / WARP;

struct Sizes {
    uint32_t rows, features, outputs;
    uint32_t stride;        // between rows of the weight
    uint32_t rows_per_bias;
};

// The weight with its first column added; bias `[rows / rows_per_bias, outputs]` or null.
struct Layer {
    const float *weight, *bias;
    float* y;
};

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_few(const float* x, Layer first_layer, Layer second_layer, Sizes of) {
    const uint32_t lane = threadIdx.x % WARP, output = blockIdx.x * SHARES + threadIdx.x / WARP;
    if (output >= of.outputs) return;
    const Layer layer = blockIdx.y == 0 ? first_layer : second_layer;
    const float* weight = layer.weight + (uint64_t)output * of.stride;
    for (uint32_t first = 0; first < of.rows; first += ROWS) {
        const float* rows = x + (uint64_t)first * of.features;
        const uint32_t count = min(ROWS, of.rows - first);
        float sums[ROWS] = {};
        for (uint32_t f = lane; f < of.features; f += WARP) {
            const float w = weight[f], *from = rows + f;
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++, from += of.features)
                if (r < count) sums[r] = fmaf(*from, w, sums[r]);
        }
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++) {
            const float sum = warp_sum(sums[r]);
            const uint64_t row = first + r;
            if (lane == 0 && r < count)
                layer.y[row * of.outputs + output] =
                    sum + (layer.bias ? layer.bias[row / of.rows_per_bias * of.outputs + output] : 0.0f);
        }
    }
}

// A gradient to be written or added to; null: not wanted.
struct Target {
    float* data;
    uint64_t accumulate;

    __device__ void write(uint64_t i, float value) const { put(data + i, value, accumulate != 0); }
};

// A layer's weight and the gradient of its result; dW and db. First columns are added.
struct Pulled {
    const float *weight, *dy;
    Target dw, db;
};

// Row `output` of dW and of db.
__device__ inline void weights(const float* x, const Pulled& layer, const Sizes& of, uint32_t output) {
    const float* dy = layer.dy;
    if (layer.dw.data)
        for (uint32_t f = threadIdx.x; f < of.features; f += THREADS) {
            float sum = 0.0f;
            for (uint32_t row = 0; row < of.rows; row++)
                sum = fmaf(dy[(uint64_t)row * of.outputs + output], x[(uint64_t)row * of.features + f], sum);
            layer.dw.write((uint64_t)output * of.stride + f, sum);
        }
    if (layer.db.data)
        for (uint32_t item = threadIdx.x; item < of.rows / of.rows_per_bias; item += THREADS) {
            float sum = 0.0f;
            for (uint32_t row = item * of.rows_per_bias; row < (item + 1) * of.rows_per_bias; row++)
                sum += dy[(uint64_t)row * of.outputs + output];
            layer.db.write((uint64_t)item * of.outputs + output, sum);
        }
}

// Features `feature` … + 31 of rows `first` … + 7 of dx, of one layer or both.
__device__ inline void inputs(const Pulled& one, const Pulled& other, const Target& dx, const Sizes& of, uint32_t first,
                              uint32_t feature) {
    __shared__ float parts[SHARES][ROWS][WARP];
    const uint32_t lane = threadIdx.x % WARP, share = threadIdx.x / WARP, count = min(ROWS, of.rows - first);
    float sums[ROWS] = {};
#pragma unroll 1
    for (int layer = 0; layer < 2; layer++) {
        const float *dy = layer == 0 ? one.dy : other.dy, *weight = layer == 0 ? one.weight : other.weight;
        if (dy == nullptr || feature + lane >= of.features) continue;
        dy += (uint64_t)first * of.outputs;
        for (uint32_t output = share; output < of.outputs; output += SHARES) {
            const float w = weight[(uint64_t)output * of.stride + feature + lane];
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++)
                if (r < count) sums[r] = fmaf(dy[(uint64_t)r * of.outputs + output], w, sums[r]);
        }
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

// Blocks below `of_weights` make dW and db, of the second layer from `of_first` on.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_few_backward(const float* x, Pulled first, Pulled second, Target dx, Sizes of, uint32_t of_first, uint32_t of_weights) {
    const uint32_t block = blockIdx.x, tiles = (of.features + WARP - 1) / WARP;
    if (block < of_first) weights(x, first, of, block);
    else if (block < of_weights) weights(x, second, of, block - of_first);
    else inputs(first, second, dx, of, (block - of_weights) / tiles * ROWS, (block - of_weights) % tiles * WARP);
}
