// A linear layer of a normalised activation that never exists: y = a·Wᵀ + b, a = act(γ·x̂ + β), x̂ = (x − μ)/√(σ² + ε), with one
// mean and one variance for all of x and γ, β one row an item: the second layer of a decoder block, both ways.
//
//   forward          a is made of x on its way into shared memory; y is measured on its way out (output_stats.cuh)
//   weight gradient  dW = dyᵀ·a, a made anew the same way, and the sums of dy's columns
//   input gradient   g = (dy·W)·act'(γ·x̂ + β) as the product is written, with the sums that the gradients of γ, β, the
//                    coefficients and the statistics need, in the places where norm_act.cuh puts them
//
// Making an element of `a` costs some 25 instructions, and a tile of N columns needs it again for each further N columns: where
// ten of them take as long as a byte of memory (H100; A100: five) four times are dearer than writing and reading `a`, once is
// cheap. So here tiles are wide (128 × 256, 64 × 512), or tall for the weight gradient (256 × 128, 512 × 64), and up to 512
// outputs see each element made once; 64 × 64 for few outputs. Such a tile reads no more from the second-level cache than one of
// 128 × 128, and has 128 sums a thread: one block of 256 threads a multiprocessor.
// The gradient's tiles are as large as those of linear.cu: its epilogue sees each element once in any case.
//
// All sums are one chain: features and outputs are at most gemm::CHAIN. Grid: (tiles of rows, tiles of columns, items), for the
// weight gradient (tiles of outputs, tiles of features, splits of rows).
//
// FLOPs 2·rows·features·outputs each, 4 + a, 4 + a and 12 + 2a an element of x besides. Compulsory bytes 4·(rows·(features +
// outputs) + features·outputs) forward and for dW, 4·rows·features more for g.

#include "norm_act_prologue.cuh"
#include "column_sums.cuh"
#include "output_stats.cuh"

using namespace gemm;

// `TILES` of src/ops/norm_act_linear/cuda.rs. What an epilogue knows beside the sums leaves room for fewer blocks.
using Wide256 = Tile<128, 256, 16, 8, 1>;
using Wide512 = Tile<64, 512, 16, 8, 1>;
using Tall256 = Tile<256, 128, 16, 8, 1>;
using Tall512 = Tile<512, 64, 16, 8, 1>;
using Epilogue64 = Tile<64, 64, 4, 4, 3>;
using Epilogue128 = Tile<128, 128, 8, 8, 1>;

// `a` of one item, along k.
template <class F> struct ActivatedRows : Rows {
    const Activated<F>& activated;
    uint32_t item;

    __device__ float4 finish(const float4& x, Place row, uint32_t k) const {
        return row == nullptr ? x : activated.value(x, item, k);
    }
};

// `a` of all items, a row for each k.
template <class F> struct ActivatedColumns : Columns {
    const Activated<F>& activated;
    uint32_t rows_per_item;

    __device__ float4 finish(const float4& x, Place n, uint32_t k) const {
        return k < rows ? activated.value(x, k / rows_per_item, n) : x;
    }
};

// An `Output` of one item that turns the gradient of `a` into g and gathers what else is made of it.
template <class T, class F> struct Derived : Output<InOrder> {
    const float* x;
    const Activated<F>& activated;
    uint32_t item;
    Gathered<F, T::TN, 4, T::LANES_N, T::M / T::WARP_M, T::WARPS_N> gathered;

    __device__ Derived(const Output& out, const float* x, const Activated<F>& activated, uint32_t item)
        : Output(out), x(x), activated(activated), item(item) {}

    __device__ void write(uint32_t m, uint32_t n, int part, const float4& sum, bool) {
        const uint64_t row = (uint64_t)m * pitch;
        const float4 value = quad(x + row, n, columns, vector);
        const float mean = activated.mean;
        const Four v = activated.argument(value, item, n), da = {sum.x, sum.y, sum.z, sum.w};
        const Four off = {value.x - mean, value.y - mean, value.z - mean, value.w - mean};
        const Four g = gathered.derive(activated.f, part, v, off, da, columns - n);
        put(data + row + n, n, make_float4(g.v[0], g.v[1], g.v[2], g.v[3]));
    }
};

// x `[items, rows, features]` → y `[items, rows, outputs]`; statistics null: not wanted.
template <class T, class F>
__device__ void forward(const float* x, const Vectors& vectors, const F& f, const float* weight, const float* bias, float* y,
                        float4* parts, float* statistics, uint32_t* ticket, Sizes s) {
    const uint32_t item = blockIdx.z;
    const bool vector = s.features % 4 == 0;
    const Activated<F> activated(vectors, f, s.features, vector);
    const ActivatedRows<F> a{{{x + (uint64_t)item * s.rows * s.features, s.features, s.rows, s.features, vector}}, activated, item};
    const Rows b{{weight, s.features, s.outputs, s.features, vector}};
    const float* own = bias ? bias + (uint64_t)item * s.item_bias : nullptr;
    Measured out({y + (uint64_t)item * s.rows * s.outputs, s.outputs, s.rows, s.outputs, own, s.rows, false, s.outputs % 4 == 0, {}});
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, 0, s.features);
    const uint32_t block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    if (statistics) out.meter.measure(parts, statistics, ticket, block, gridDim.x * gridDim.y * gridDim.z);
}

// dW, or its parts `[splits][outputs, features]`, from dy `[items, rows, outputs]` and x.
template <class T, class F>
__device__ void weight_gradient(const float* dy, const float* x, const Vectors& vectors, const F& f, float* dw, uint32_t items,
                                Whole whole, const ColumnSums& bias, Sizes s) {
    const uint32_t rows = items * s.rows;
    const bool vector = s.features % 4 == 0;
    const Activated<F> activated(vectors, f, s.features, vector);
    const Columns a{{dy, s.outputs, rows, s.outputs, s.outputs % 4 == 0}};
    const ActivatedColumns<F> b{{{x, s.features, rows, s.features, vector}}, activated, s.rows};
    float* part = dw + (uint64_t)blockIdx.z * s.outputs * s.features;
    const bool add = gridDim.z == 1 && whole.accumulate;
    const Output<InOrder> plain{part, s.features, s.outputs, s.features, nullptr, 1, add, vector, {}};
    Summing<Output<InOrder>, T, SLICE, T::M + 4> out(plain, bias);
    const uint2 k = split_of(rows, blockIdx.z, gridDim.z);
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
    out.leave();
}

// g `[items, rows, features]` from dy; channel_sums `[items, tiles of rows, 2, features]`, coefficient_sums `[K, blocks]`.
template <class T, class F>
__device__ void input_gradient(const float* dy, const float* weight, const float* x, const Vectors& vectors, const F& f, float* g,
                               float* channel_sums, float* coefficient_sums, Sizes s) {
    const uint32_t item = blockIdx.z;
    const uint64_t first = (uint64_t)item * s.rows;
    const bool vector = s.features % 4 == 0;
    const Activated<F> activated(vectors, f, s.features, vector);
    const Rows a{{dy + first * s.outputs, s.outputs, s.rows, s.outputs, s.outputs % 4 == 0}};
    const Columns b{{weight, s.features, s.outputs, s.features, vector}};
    const Output<InOrder> plain{g + first * s.features, s.features, s.rows, s.features, nullptr, 1, false, vector, {}};
    Derived<T, F> out(plain, x + first * s.features, activated, item);
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, 0, s.outputs);
    float* sums = channel_sums + ((uint64_t)item * gridDim.x + blockIdx.x) * 2 * s.features;
    out.gathered.leave(sums, blockIdx.y * T::N, s.features);
    leave_coefficients<T::THREADS>(f, out.gathered.coefficients, coefficient_sums);
}

#define TILE(NAME) __launch_bounds__(NAME::THREADS, NAME::BLOCKS)
#define FORWARD(T, SUFFIX, NAME, F)                                                                                    \
    extern "C" __global__ void TILE(T) norm_act_linear_##NAME##_##SUFFIX(                                              \
        const float* x, const float* statistics, const float* gamma, const float* beta, Norm norm,                     \
        const float* numerator, const float* denominator, const float* weight, const float* bias, float* y,            \
        float4* parts, float* measured, uint32_t* ticket, Sizes s) {                                                   \
        const F f(numerator, denominator, 0.0f);                                                                       \
        forward<T>(x, Vectors{statistics, gamma, beta, norm}, f, weight, bias, y, parts, measured, ticket, s);         \
    }
#define WEIGHT_GRADIENT(T, SUFFIX, NAME, F)                                                                            \
    extern "C" __global__ void TILE(T) norm_act_linear_weight_gradient_##NAME##_##SUFFIX(                              \
        const float* dy, const float* x, const float* statistics, const float* gamma, const float* beta, Norm norm,    \
        const float* numerator, const float* denominator, float* dw, uint32_t items, Whole whole,                     \
        ColumnSums bias, Sizes s) {                                                                                    \
        const F f(numerator, denominator, 0.0f);                                                                       \
        weight_gradient<T>(dy, x, Vectors{statistics, gamma, beta, norm}, f, dw, items, whole, bias, s);               \
    }
#define INPUT_GRADIENT(T, SUFFIX, NAME, F)                                                                             \
    extern "C" __global__ void TILE(T) norm_act_linear_input_gradient_##NAME##_##SUFFIX(                               \
        const float* dy, const float* weight, const float* x, const float* statistics, const float* gamma,             \
        const float* beta, Norm norm, const float* numerator, const float* denominator, float* g, float* channel_sums, \
        float* coefficient_sums, Sizes s) {                                                                            \
        const F f(numerator, denominator, 0.0f);                                                                       \
        input_gradient<T>(dy, weight, x, Vectors{statistics, gamma, beta, norm}, f, g, channel_sums, coefficient_sums, s); \
    }

using Pade54 = Pade<6, 4>; // orders 5 and 4
FORWARD(Tile64, 64, pade54, Pade54)
FORWARD(Wide256, 256, pade54, Pade54)
FORWARD(Wide512, 512, pade54, Pade54)
WEIGHT_GRADIENT(Tile64, 64, pade54, Pade54)
WEIGHT_GRADIENT(Tall256, 256, pade54, Pade54)
WEIGHT_GRADIENT(Tall512, 512, pade54, Pade54)
INPUT_GRADIENT(Epilogue64, 64, pade54, Pade54)
INPUT_GRADIENT(Epilogue128, 128, pade54, Pade54)
