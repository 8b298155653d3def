// The input's gradient of norm_act_linear.cu on tensor cores: g = (dy·W)·act'(γ·x̂ + β) as the product is written, with the sums
// that the gradients of γ, β, the coefficients and the statistics need.
//
// The other passes of that layer are norm_act.cuh's and linear_measured_mma.cu's here: tensor cores multiply an element of `a` by
// 128 columns in the time of nine f32 instructions (H100), making it takes some 25 for each tile of columns, writing and
// reading it the time of 40.
//
// FLOPs 2·rows·features·outputs and 12 + 2a an element of x; compulsory bytes: each tensor once.

#include "norm_act_prologue.cuh"
#include "mma.cuh"

using namespace mma;

template <class T, class F> struct Derived : Output<gemm::InOrder> {
    const void* x;
    const Activated<F>& activated;
    uint32_t item;
    // Pairs of neighbours, four lanes abreast.
    Gathered<F, T::WARP_N / 4, 2, 4, T::M / T::WARP_M, T::WARPS_N> gathered;

    __device__ Derived(const Output& out, const void* x, const Activated<F>& activated, uint32_t item)
        : Output(out), x(x), activated(activated), item(item) {}

    __device__ void write(uint32_t m, uint32_t n, int part, float a, float b) {
        const uint64_t at = (uint64_t)m * pitch + n;
        const bool both = n + 1 < columns;
        const float first = stored(x, at, narrow), second = both ? stored(x, at + 1, narrow) : activated.mean;
        const Four v = {activated.argument_of(first, item, n), both ? activated.argument_of(second, item, n + 1) : 0.0f};
        const Four off = {first - activated.mean, second - activated.mean}, da = {a, both ? b : 0.0f};
        const Four g = gathered.derive(activated.f, part, v, off, da, columns - n);
        if (narrow) put((bf16*)data + at, g.v[0], g.v[1], both);
        else put((float*)data + at, g.v[0], g.v[1], both);
    }
};

// As in norm_act_linear.cu; x and g are stored alike.
template <class Math, class T, class F>
__device__ void input_gradient(const void* dy, const float* weight, const void* x, const Vectors& vectors, const F& f, void* g,
                               float* channel_sums, float* coefficient_sums, Sizes s, uint32_t narrow) {
    using S = Sources<Math>;
    const uint32_t item = blockIdx.z;
    const bool narrow_dy = narrow & FIRST, narrow_x = narrow & OUTPUT;
    const auto skip = [&](const void* p, uint32_t columns, bool is_narrow) {
        return (const char*)p + (uint64_t)item * s.rows * columns * (is_narrow ? 2 : 4);
    };
    const Activated<F> activated(vectors, f, s.features, false);
    const void* own = skip(dy, s.outputs, narrow_dy);
    const Rows<typename S::Activation> a{S::activation(own, s.outputs, narrow_dy), s.outputs, s.rows, s.outputs};
    const Columns<typename S::Weight> b{S::weight(weight, s.features % 4 == 0), s.features, s.outputs, s.features};
    void* to = (void*)skip(g, s.features, narrow_x);
    const Output<gemm::InOrder> plain{to, narrow_x, s.features, s.rows, s.features, nullptr, 1, false, {}};
    Derived<T, F> out(plain, skip(x, s.features, narrow_x), activated, item);
    mma::product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, 0, s.outputs);
    float* sums = channel_sums + ((uint64_t)item * gridDim.x + blockIdx.x) * 2 * s.features;
    out.gathered.leave(sums, blockIdx.y * T::N, s.features);
    leave_coefficients<T::THREADS>(f, out.gathered.coefficients, coefficient_sums);
}

#define INPUT_GRADIENT(MATH, PRECISION, COLUMNS, NAME, F)                                                              \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS)                                               \
        norm_act_linear_input_gradient_##NAME##_##PRECISION##_##COLUMNS(                                               \
            const void* dy, const float* weight, const void* x, const float* statistics, const float* gamma,           \
            const float* beta, Norm norm, const float* numerator, const float* denominator, void* g,                   \
            float* channel_sums, float* coefficient_sums, Sizes s, uint32_t narrow) {                                  \
        const F f(numerator, denominator, 0.0f);                                                                       \
        input_gradient<MATH, Tile##COLUMNS>(dy, weight, x, Vectors{statistics, gamma, beta, norm}, f, g, channel_sums, \
                                            coefficient_sums, s, narrow);                                              \
    }

using Pade54 = Pade<6, 4>; // orders 5 and 4
INPUT_GRADIENT(Half, bf16, 64, pade54, Pade54)
INPUT_GRADIENT(Half, bf16, 128, pade54, Pade54)
INPUT_GRADIENT(Tf32, tf32, 64, pade54, Pade54)
INPUT_GRADIENT(Tf32, tf32, 128, pade54, Pade54)
