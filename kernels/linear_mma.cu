// Linear layers on tensor cores: y = x·W[:, columns]ᵀ + b, dx = dy·W, dW = dyᵀ·x, as products of mma.cuh.
//
// The grids, tiles and splits are those of linear.cu. Weights, biases and what splits leave are f32; the others f32 or bf16:
// in `_bf16` kernels x and dy are bf16, in `_tf32` kernels each is what `narrow` says; so is the output in both.
//
// FLOPs 2·rows·features·outputs each; compulsory bytes: each tensor once.

#include "column_sums.cuh"
#include "mma.cuh"

using namespace mma;

// Where a split puts its sums: the output itself, its rows `pitch` apart, or a part of its own in f32.
__device__ inline Output<gemm::InOrder> output(
    void* data, bool narrow, uint32_t pitch, uint32_t rows, uint32_t columns, const float* bias, uint32_t rows_per_bias,
    bool accumulate) {
    const bool split = gridDim.z > 1;
    void* part = split ? (float*)data + (uint64_t)blockIdx.z * rows * columns : data;
    return {part, narrow && !split, split ? columns : pitch, rows, columns, bias, rows_per_bias, accumulate && !split, {}};
}

// y `[splits][rows, outputs]` = x `[rows, features]` · W `[outputs, stride]`ᵀ + b `[rows / rows_per_bias, outputs]`.
template <class Math, class T>
__device__ void forward(
    const void* x, const float* weight, const float* bias, void* y, uint32_t rows, uint32_t features, uint32_t outputs,
    uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight, uint32_t narrow) {
    using S = Sources<Math>;
    const Rows<typename S::Activation> a{S::activation(x, features, narrow & FIRST), features, rows, features};
    const Rows<typename S::Weight> b{S::weight(weight, vector_weight), stride, outputs, features};
    auto out = output(y, narrow & OUTPUT, outputs, rows, outputs, bias, rows_per_bias, false);
    const uint2 k = split_of<Math>(features, blockIdx.z, gridDim.z);
    mma::product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
}

// dx `[splits][rows, features]` (+)= dy `[rows, outputs]` · W `[outputs, stride]`.
template <class Math, class T>
__device__ void input_gradient(
    const void* dy, const float* weight, void* dx, uint32_t rows, uint32_t features, uint32_t outputs, uint32_t stride,
    uint32_t vector_weight, uint32_t accumulate, uint32_t narrow) {
    using S = Sources<Math>;
    const Rows<typename S::Activation> a{S::activation(dy, outputs, narrow & FIRST), outputs, rows, outputs};
    const Columns<typename S::Weight> b{S::weight(weight, vector_weight), stride, outputs, features};
    auto out = output(dx, narrow & OUTPUT, features, rows, features, nullptr, 1, accumulate);
    const uint2 k = split_of<Math>(outputs, blockIdx.z, gridDim.z);
    mma::product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
}

// dW = dy `[rows, outputs]`ᵀ · x `[rows, features]`, or its parts `[splits][outputs, features]`, in f32; and the sums of dy's
// columns as the units see them: exact of bf16.
template <class Math, class T>
__device__ void weight_gradient(
    const void* dy, const void* x, float* dw, uint32_t rows, uint32_t features, uint32_t outputs, Whole whole,
    const ColumnSums& bias, uint32_t narrow) {
    using S = Sources<Math>;
    const Columns<typename S::Activation> a{S::activation(dy, outputs, narrow & FIRST), outputs, rows, outputs};
    const Columns<typename S::Activation> b{S::activation(x, features, narrow & SECOND), features, rows, features};
    const auto plain = output(dw, false, whole.pitch, outputs, features, nullptr, 1, whole.accumulate);
    Summing<Output<gemm::InOrder>, T, Math::SLICE, T::M + 8> out(plain, bias);
    const uint2 k = split_of<Math>(rows, blockIdx.z, gridDim.z);
    mma::product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
    out.leave();
}

// Blocks of a weight's gradient that a multiprocessor must hold: left alone, ptxas may give one of 256 threads more than half of the
// registers (sm_120); of 128 threads it chooses better than any bound.
#define LEAST(COLUMNS) (Tile##COLUMNS::THREADS == 256 ? 2 : 0)
#define LINEAR(MATH, NAME, COLUMNS) \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS) linear_forward_##NAME##_##COLUMNS( \
        const void* x, const float* weight, const float* bias, void* y, uint32_t rows, uint32_t features, \
        uint32_t outputs, uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight, uint32_t narrow) { \
        forward<MATH, Tile##COLUMNS>( \
            x, weight, bias, y, rows, features, outputs, stride, rows_per_bias, vector_weight, narrow); \
    } \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS) linear_input_gradient_##NAME##_##COLUMNS( \
        const void* dy, const float* weight, void* dx, uint32_t rows, uint32_t features, uint32_t outputs, \
        uint32_t stride, uint32_t vector_weight, uint32_t accumulate, uint32_t narrow) { \
        input_gradient<MATH, Tile##COLUMNS>( \
            dy, weight, dx, rows, features, outputs, stride, vector_weight, accumulate, narrow); \
    } \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS, LEAST(COLUMNS)) \
        linear_weight_gradient_##NAME##_##COLUMNS( \
            const void* dy, const void* x, float* dw, uint32_t rows, uint32_t features, uint32_t outputs, Whole whole, \
            ColumnSums bias, uint32_t narrow) { \
        weight_gradient<MATH, Tile##COLUMNS>(dy, x, dw, rows, features, outputs, whole, bias, narrow); \
    }

LINEAR(Half, bf16, 16)
LINEAR(Half, bf16, 32)
LINEAR(Half, bf16, 64)
LINEAR(Half, bf16, 128)
LINEAR(Tf32, tf32, 16)
LINEAR(Tf32, tf32, 32)
LINEAR(Tf32, tf32, 64)
LINEAR(Tf32, tf32, 128)
