// Convolutions over three axes on tensor cores: the products of conv3d.cu, gathered as there, by mma.cuh.
//
// Grids, tiles, splits and packed weights are those of conv3d.cu. Packed weights, biases and what splits leave are f32; the others
// f32 or bf16: in `_bf16` kernels source and gradient are bf16, in `_tf32` kernels each is what `narrow` says; so is the
// output in both.
//
// Channels in eights (bf16; in fours: tf32) are gathered 16 bytes at a time by cp.async, other numbers (CT's one, three) element
// by element.
//
// FLOPs 2·voxels·taps·in·out (padding counted); compulsory bytes each tensor once. Measured as in conv3d.cu: what is stored, which
// in bf16 is rounded.

#include "channel_stats.cuh"
#include "conv_mma_loader.cuh"

using namespace mma;

// Target voxels, whose channels may be measured.
struct Targets : Output<ViewOrder> {
    static constexpr bool MEASURES = true;
    Channels channels;

    __device__ Targets(const Output& out, const Channels& channels) : Output(out), channels(channels) {}

    __device__ float2 write(uint32_t m, uint32_t n, int part, float a, float b) {
        // The compiler is not to see that it is the same for every row: it would write all of them twice, with and without bias.
        // An offset, for a pointer that comes from nowhere known is read without its state space.
        uint32_t nothing = 0;
        asm volatile("" : "+r"(nothing));
        bias += nothing;
        return Output::write(m, n, part, a, b);
    }

    template <class T, int ROWS, int EIGHTS>
    __device__ void measure(const float (&y)[ROWS][EIGHTS][4], uint32_t m0, uint32_t n0, void* shared) const {
        if (channels.parts == nullptr) return;
        const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        const uint32_t row = warp / T::WARPS_N * T::WARP_M, height = m0 + row < rows ? rows - m0 - row : 0;
        const uint32_t column = warp % T::WARPS_N * T::WARP_N + lane % 4 * 2;
        const auto parts = (float (*)[3][T::N])shared;
        const auto place = [&](int i) { return lane / 4 + i * 8; };
#pragma unroll
        for (int n = 0; n < 2 * EIGHTS; n++) {
            float own[2 * ROWS];
#pragma unroll
            for (int i = 0; i < 2 * ROWS; i++) own[i] = y[i / 2][n / 2][i % 2 * 2 + n % 2];
            const uint32_t at = column + n / 2 * 8 + n % 2;
            leave_column<4>(parts[warp / T::WARPS_N], at, own, min(height, T::WARP_M), place);
        }
        join_channels<T::THREADS, T::N, T::M / T::WARP_M, T::WARP_M>(channels, shared, n0, rows, columns);
    }
};

// target `[splits][batch, D', H', W', columns]` (+)= source `[batch, D, H, W, channels]` ⋆ packed + bias `[columns]`.
template <class Math, class T>
__device__ void correlate(
    const Conv& c, const void* source, const float* packed, const float* bias, void* target, uint32_t splits, bool accumulate,
    uint32_t narrow, const Channels& channels) {
    using S = Sources<Math>;
    const View view(c, blockIdx.z / splits);
    const ::Voxels voxels{
        Divisor(view.rows[0] * view.rows[1] * view.rows[2]), Divisor(view.rows[1] * view.rows[2]), Divisor(view.rows[2])};
    const PairsAlong<typename S::Activation> a(c, view, voxels, S::activation(source, c.channels, narrow & FIRST));
    const uint32_t m0 = blockIdx.x * T::M, split = blockIdx.z % splits;
    if (m0 >= a.spots) return;
    const uint32_t pitch = (c.columns + 3) / 4 * 4;
    const float* weights = packed + (uint64_t)view.before * c.channels * pitch;
    const Columns<typename S::Weight> b{S::weight(weights, true), pitch, a.pairs, pitch};
    const uint64_t size = (uint64_t)c.batch * c.target[0] * c.target[1] * c.target[2] * c.columns;
    void* part = splits > 1 ? (float*)target + split * size : target;
    const ViewOrder order(c, view, voxels);
    Targets out({part, (narrow & OUTPUT) != 0, c.columns, a.spots, c.columns, bias, 0xffffffffu, accumulate, order}, channels);
    const uint2 k = split_of<Math>(a.pairs, split, splits);
    mma::product<T>(a, b, out, m0, blockIdx.y * T::N, k.x, k.y);
}

// dW `[splits][taps · channels, columns]` = sourceᵀ ⋆ target, which is the output's gradient here; in f32.
template <class Math, class T>
__device__ void weight_gradient(
    Conv c, const ::Voxels& voxels, const void* source, const void* target, float* dw, uint32_t narrow) {
    using S = Sources<Math>;
    c.adjoint = 0;
    const View view(c, 0);
    const PairsAcross<typename S::Activation> a(c, view, voxels, S::activation(source, c.channels, narrow & FIRST));
    const Columns<typename S::Activation> b{S::activation(target, c.columns, narrow & SECOND), c.columns, a.spots, c.columns};
    float* part = dw + (uint64_t)blockIdx.z * a.pairs * c.columns;
    Output<gemm::InOrder> out{part, false, c.columns, a.pairs, c.columns, nullptr, 1, false, {}};
    const uint2 k = split_of<Math>(a.spots, blockIdx.z, gridDim.z);
    mma::product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
}

#define CONV(MATH, NAME, COLUMNS) \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS) conv3d_correlate_##NAME##_##COLUMNS( \
        Conv c, const void* source, const float* packed, const float* bias, void* target, uint32_t splits, \
        uint32_t accumulate, uint32_t narrow, Channels channels) { \
        correlate<MATH, Tile##COLUMNS>(c, source, packed, bias, target, splits, accumulate != 0, narrow, channels); \
    } \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS) conv3d_weight_gradient_##NAME##_##COLUMNS( \
        Conv c, ::Voxels voxels, const void* source, const void* target, float* dw, uint32_t narrow) { \
        weight_gradient<MATH, Tile##COLUMNS>(c, voxels, source, target, dw, narrow); \
    }

CONV(Half, bf16, 16)
CONV(Half, bf16, 32)
CONV(Half, bf16, 64)
CONV(Half, bf16, 128)
CONV(Tf32, tf32, 16)
CONV(Tf32, tf32, 32)
CONV(Tf32, tf32, 64)
CONV(Tf32, tf32, 128)
