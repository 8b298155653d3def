// A convolution with normalisation by given statistics, Padé unit and the mean of each 2×2×2 window in its epilogue: the first
// half of an encoder block, of which only the pooled result, an eighth, is ever written. For evaluation, and for training where
// the convolution's result is not kept.
//
//   y[window] = 1/8·Σ_voxels act(γ·(h − μ)/√(σ² + ε) + β),   h = the convolution of conv3d.cu, bias apart
//
// The product is that of conv3d.cu with its rows in another order: the eight rows that a thread has are the voxels of one
// window, so that the mean is a sum in registers:
//
//   f32            rows 4·w … 4·w + 3 of a group and those half a group further on    (a thread's 2 × 4 rows, gemm.cuh)
//   tensor cores   rows w, w + 8, w + 16 … of a group of 64, or of 32 in two lanes     (conv3d_pooled_mma.cu)
//
// All of k is one chain: taps · channels are at most gemm::CHAIN. Windows are whole: voxels that the pool drops are not made.
// Grid: (tiles of windows, tiles of columns).
//
// FLOPs 2·voxels·taps·in·out + (5 + a)·voxels·out (a: the activation's); compulsory bytes: source, weights and y once. Against
// convolution, norm with activation, and pool one after the other: 4·(1 + 2 + 1)·voxels·out bytes less.

#include "conv3d_pooled.cuh"

using namespace gemm;

// Row m of a tile T belongs to a window and is one of its voxels.
template <class T> struct WindowOrder {
    static constexpr uint32_t STEP = T::LANES_M * 4; // from a thread's first four rows to its second
    __device__ static uint32_t window(uint32_t m) { return m / (2 * STEP) * (STEP / 4) + m % STEP / 4; }
    __device__ static uint32_t member(uint32_t m) { return m % (2 * STEP) / STEP * 4 + m % 4; }
};

// The matrix of conv3d.cuh with its rows in this order.
template <class T> struct GatherWindows : GatherRows {
    const Pooling& pooling;

    __device__ GatherWindows(const GatherRows& rows, const Pooling& pooling) : GatherRows(rows), pooling(pooling) {}
    __device__ Place place(uint32_t m) const {
        const uint32_t window = WindowOrder<T>::window(m);
        return spot(window < pooling.windows ? pooling.voxel(window, WindowOrder<T>::member(m)) : NONE);
    }
};

// Adds up what a thread sees of its window, and writes the mean.
template <class T, class F> struct Pooled {
    static constexpr bool MEASURES = false, SEES_SLICES = false;
    uint32_t rows, columns, n0;
    const F& f;
    const float (*affine)[T::N];
    uint32_t window, column;
    Four sum = {};

    __device__ Pooled(uint32_t columns, uint32_t n0, const F& f, const float (*affine)[T::N])
        : rows(~0u), columns(columns), n0(n0), f(f), affine(affine), window(~0u), column(~0u) {}

    __device__ void write(uint32_t m, uint32_t n, int, const float4& h, bool) {
        static_assert(T::TN == 4, "a thread has four columns");
        const float values[4] = {h.x, h.y, h.z, h.w};
        window = WindowOrder<T>::window(m), column = n;
        float arguments[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t c = n - n0 + k;
            arguments[k] = fmaf(values[k] - affine[0][c], affine[1][c], affine[2][c]);
        }
        add_values(f, arguments, sum.v);
    }

    __device__ void finish(float* y, const Pooling& pooling) const {
        if (window >= pooling.windows || column >= columns) return;
        Four mean = sum;
        for (int k = 0; k < 4; k++) mean.v[k] *= 0.125f;
        store_four(y + (uint64_t)window * columns + column, mean, min(columns - column, 4u));
    }
};

// y [batch, D'/2, H'/2, W'/2, columns]
template <class T, class F>
__device__ void pooled(const Conv& c, const Pooling& pooling, const float* source, const float* packed, const Vectors& vectors,
                       const F& f, float* y) {
    __shared__ __align__(16) float affine[3][T::N];
    const View view(c, 0);
    const Voxels voxels{
        Divisor(view.rows[0] * view.rows[1] * view.rows[2]), Divisor(view.rows[1] * view.rows[2]), Divisor(view.rows[2])};
    const GatherWindows<T> a(GatherRows(c, view, voxels, source), pooling);
    const uint32_t pitch = (c.columns + 3) / 4 * 4, n0 = blockIdx.y * T::N;
    const Columns b{{packed, pitch, a.pairs, pitch, true}};
    prepare<T::N>(vectors, n0, c.columns, affine);
    Pooled<T, F> out(c.columns, n0, f, affine);
    product<T>(a, b, out, blockIdx.x * T::M, n0, 0, a.pairs);
    out.finish(y, pooling);
}

#define POOLED(COLUMNS, NAME, F)                                                                                       \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS, Tile##COLUMNS::BLOCKS / 2)                    \
        conv3d_pooled_##NAME##_##COLUMNS(Conv c, Pooling pooling, const float* source, const float* packed,            \
                                         const float* statistics, const float* gamma, const float* beta, Norm norm,    \
                                         const float* numerator, const float* denominator, float* y) {                 \
        pooled<Tile##COLUMNS>(c, pooling, source, packed, Vectors{statistics, gamma, beta, norm},                      \
                              F(numerator, denominator, 0.0f), y);                                                     \
    }

using Pade54 = Pade<6, 4>; // orders 5 and 4
POOLED(16, pade54, Pade54)
POOLED(32, pade54, Pade54)
POOLED(64, pade54, Pade54)
