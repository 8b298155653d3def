// Linear layers: y = x·W[:, columns]ᵀ + b, dx = dy·W, dW = dyᵀ·x, as products of gemm.cuh.
//
// Tiles of 256 × 16, 128 × 32, 64 × 64 and 128 × 128 by the number of columns; grid (tiles of rows, tiles of columns, splits
// of k). A split writes its sums to a part of its own, `sum_splits` adds the parts. `W` comes with its first column added.
//
// FLOPs 2·rows·features·outputs each; compulsory bytes 4·(rows·(features + outputs) + features·outputs).
// A faster one: gemm.cuh.

#include "column_sums.cuh"
#include "gemm.cuh"

using namespace gemm;

// y `[splits][rows, outputs]` (+)= x `[rows, features]` · W `[outputs, stride]`ᵀ + b `[rows / rows_per_bias, outputs]`.
template <class T>
__device__ void forward(
    const float* x, const float* weight, const float* bias, float* y, uint32_t rows, uint32_t features, uint32_t outputs,
    uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight) {
    const bool vector = features % 4 == 0;
    const Rows a{{x, features, rows, features, vector}};
    const Rows b{{weight, stride, outputs, features, vector && vector_weight}};
    float* part = y + (uint64_t)blockIdx.z * rows * outputs;
    Output<InOrder> out{part, outputs, rows, outputs, bias, rows_per_bias, false, outputs % 4 == 0, {}};
    const uint2 k = split_of(features, blockIdx.z, gridDim.z);
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
}

// dx `[splits][rows, features]` (+)= dy `[rows, outputs]` · W `[outputs, stride]`.
template <class T>
__device__ void input_gradient(
    const float* dy, const float* weight, float* dx, uint32_t rows, uint32_t features, uint32_t outputs, uint32_t stride,
    uint32_t vector_weight, uint32_t accumulate) {
    const Rows a{{dy, outputs, rows, outputs, outputs % 4 == 0}};
    const Columns b{{weight, stride, outputs, features, features % 4 == 0 && vector_weight}};
    float* part = dx + (uint64_t)blockIdx.z * rows * features;
    Output<InOrder> out{part, features, rows, features, nullptr, 1, accumulate != 0, features % 4 == 0, {}};
    const uint2 k = split_of(outputs, blockIdx.z, gridDim.z);
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
}

// dW = dy `[rows, outputs]`ᵀ · x `[rows, features]`, or its parts `[splits][outputs, features]`; and the sums of dy's columns.
template <class T>
__device__ void weight_gradient(
    const float* dy, const float* x, float* dw, uint32_t rows, uint32_t features, uint32_t outputs, Whole whole,
    const ColumnSums& bias) {
    const Columns a{{dy, outputs, rows, outputs, outputs % 4 == 0}};
    const Columns b{{x, features, rows, features, features % 4 == 0}};
    float* part = dw + (uint64_t)blockIdx.z * outputs * features;
    const uint32_t pitch = gridDim.z > 1 ? features : whole.pitch;
    const bool vector = features % 4 == 0 && pitch % 4 == 0 && (uint64_t)dw % 16 == 0, add = gridDim.z == 1 && whole.accumulate;
    const Output<InOrder> plain{part, pitch, outputs, features, nullptr, 1, add, vector, {}};
    Summing<Output<InOrder>, T, SLICE, T::M + 4> out(plain, bias);
    const uint2 k = split_of(rows, blockIdx.z, gridDim.z);
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
    out.leave();
}

#define BOUNDS(COLUMNS) __launch_bounds__(Tile##COLUMNS::THREADS, Tile##COLUMNS::BLOCKS)
#define LINEAR(COLUMNS) \
    extern "C" __global__ void BOUNDS(COLUMNS) linear_forward_##COLUMNS( \
        const float* x, const float* weight, const float* bias, float* y, uint32_t rows, uint32_t features, \
        uint32_t outputs, uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight) { \
        forward<Tile##COLUMNS>(x, weight, bias, y, rows, features, outputs, stride, rows_per_bias, vector_weight); \
    } \
    extern "C" __global__ void BOUNDS(COLUMNS) linear_input_gradient_##COLUMNS( \
        const float* dy, const float* weight, float* dx, uint32_t rows, uint32_t features, uint32_t outputs, \
        uint32_t stride, uint32_t vector_weight, uint32_t accumulate) { \
        input_gradient<Tile##COLUMNS>(dy, weight, dx, rows, features, outputs, stride, vector_weight, accumulate); \
    } \
    extern "C" __global__ void BOUNDS(COLUMNS) linear_weight_gradient_##COLUMNS( \
        const float* dy, const float* x, float* dw, uint32_t rows, uint32_t features, uint32_t outputs, Whole whole, \
        ColumnSums bias) { \
        weight_gradient<Tile##COLUMNS>(dy, x, dw, rows, features, outputs, whole, bias); \
    }

LINEAR(16)
LINEAR(32)
LINEAR(64)
LINEAR(128)
