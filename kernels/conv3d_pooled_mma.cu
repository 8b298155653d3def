// The twin of conv3d_pooled.cu on tensor cores: source and result in bf16, the convolution's own result in f32 where the
// operations apart would round it to bf16.
//
// A fragment of mma.sync has rows 8 apart in one thread: of 64 rows of a warp eight belong to it, a window; of 32 rows four, and
// the lane 16 further on has the other four.

#include "conv3d_pooled.cuh"
#include "conv_mma_loader.cuh"

using namespace mma;

// Row m of a tile whose warps have ROWS rows belongs to a window and is one of its voxels.
template <int ROWS> struct WindowOrder {
    static constexpr uint32_t WINDOWS = ROWS / 8;
    __device__ static uint32_t window(uint32_t m) { return m / ROWS * WINDOWS + m % WINDOWS; }
    __device__ static uint32_t member(uint32_t m) {
        return ROWS == 64 ? m / 8 % 8 : m % 8 / WINDOWS * 4 + m / 8 % 4;
    }
};

// The matrix of conv_mma_loader.cuh with its rows in this order.
template <class Source, int ROWS> struct PairsOfWindows : PairsAlong<Source> {
    using typename PairsAlong<Source>::Place;
    const Pooling& pooling;

    __device__ PairsOfWindows(const PairsAlong<Source>& pairs, const Pooling& pooling)
        : PairsAlong<Source>(pairs), pooling(pooling) {}
    __device__ Place place(uint32_t m) const {
        const uint32_t window = WindowOrder<ROWS>::window(m);
        return Gather::spot(window < pooling.windows ? pooling.voxel(window, WindowOrder<ROWS>::member(m)) : Gather::NONE);
    }
};

// Adds up what a thread sees of its window; a thread's columns are pairs, eight apart.
template <class T, class F> struct Pooled {
    static constexpr bool MEASURES = false, SEES_SLICES = false;
    static constexpr int PAIRS = T::WARP_N / 8;
    uint32_t rows, columns, n0;
    const F& f;
    const float (*affine)[T::N];
    uint32_t window, column;
    float sums[PAIRS][2] = {};

    __device__ Pooled(uint32_t columns, uint32_t n0, const F& f, const float (*affine)[T::N])
        : rows(~0u), columns(columns), n0(n0), f(f), affine(affine), window(~0u), column(~0u) {}

    __device__ void write(uint32_t m, uint32_t n, int part, float a, float b) {
        window = WindowOrder<T::WARP_M>::window(m);
        if (part == 0) column = n;
        const uint32_t c = n - n0;
        const float arguments[2] = {fmaf(a - affine[0][c], affine[1][c], affine[2][c]),
                                    fmaf(b - affine[0][c + 1], affine[1][c + 1], affine[2][c + 1])};
        add_values(f, arguments, sums[part]);
    }

    // All threads must take part.
    __device__ void finish(bf16* y, const Pooling& pooling) const {
#pragma unroll
        for (int part = 0; part < PAIRS; part++) {
            float both[2] = {sums[part][0], sums[part][1]};
            if (T::WARP_M == 32)
                for (int k = 0; k < 2; k++) both[k] += __shfl_xor_sync(ALL_LANES, both[k], WARP / 2);
            const uint32_t n = column + part * 8;
            if (T::WARP_M == 32 && threadIdx.x % WARP >= WARP / 2 || window >= pooling.windows) continue;
            if (column == ~0u || n >= columns) continue;
            bf16* to = y + (uint64_t)window * columns + n;
            if (columns % 2 == 0) {
                *(uint32_t*)to = mma::pair(0.125f * both[0], 0.125f * both[1]);
            } else {
                to[0] = 0.125f * both[0];
                if (n + 1 < columns) to[1] = 0.125f * both[1];
            }
        }
    }
};

template <class T, class F>
__device__ void pooled(const Conv& c, const Pooling& pooling, const bf16* source, const float* packed, const Vectors& vectors,
                       const F& f, bf16* y) {
    __shared__ __align__(16) float affine[3][T::N];
    using S = Sources<Half>;
    const View view(c, 0);
    const ::Voxels voxels{
        Divisor(view.rows[0] * view.rows[1] * view.rows[2]), Divisor(view.rows[1] * view.rows[2]), Divisor(view.rows[2])};
    const PairsOfWindows<S::Activation, T::WARP_M> a(
        PairsAlong<S::Activation>(c, view, voxels, S::activation(source, c.channels, true)), pooling);
    const uint32_t pitch = (c.columns + 3) / 4 * 4, n0 = blockIdx.y * T::N;
    const Columns<S::Weight> b{S::weight(packed, true), pitch, a.pairs, pitch};
    prepare<T::N>(vectors, n0, c.columns, affine);
    Pooled<T, F> out(c.columns, n0, f, affine);
    mma::product<T>(a, b, out, blockIdx.x * T::M, n0, 0, a.pairs);
    out.finish(y, pooling);
}

#define POOLED(COLUMNS, NAME, F)                                                                                       \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS) conv3d_pooled_##NAME##_bf16_##COLUMNS(        \
        Conv c, Pooling pooling, const bf16* source, const float* packed, const float* statistics, const float* gamma, \
        const float* beta, Norm norm, const float* numerator, const float* denominator, bf16* y) {                     \
        pooled<Tile##COLUMNS>(c, pooling, source, packed, Vectors{statistics, gamma, beta, norm},                      \
                              F(numerator, denominator, 0.0f), y);                                                     \
    }

using Pade54 = Pade<6, 4>; // orders 5 and 4
POOLED(16, pade54, Pade54)
POOLED(32, pade54, Pade54)
POOLED(64, pade54, Pade54)
