// Convolutions over three axes, channels last, as implicit products on the tiles of gemm.cuh.
//
// * `correlate`: y[o, co] = Σ_(t, ci) x[o·stride + t − padding, ci]·W[(t, ci), co]: rows are target voxels, k runs over taps
//   and channels, and each slice of the left operand is gathered from the volume while the one before is multiplied. The
//   adjoint (data gradient, transposed convolution) is the same with taps in the other direction, once for each remainder of
//   the target's coordinates modulo the stride, so that none of its products is with zero.
// * weight gradient: dW[(t, ci), co] = Σ_o x[o·stride + t − padding, ci]·dy[o, co]: k runs over the voxels and is split among
//   blocks, whose parts `sum_weight_splits` adds.
//
// Channels in fours are gathered 16 bytes a load, two neighbouring quads (or taps) of a voxel beside each other; neighbouring
// voxels follow in memory. Few or odd channels (CT's one, three) are gathered element by element with the same loop: their
// tile of 256 × 16 reads each voxel 27 times from the first-level cache. Weights are packed first, `[taps, channels,
// columns]` with columns padded to fours, so that their loads are whole 16-byte ones, too.
// Grid: (tiles of voxels, tiles of columns, phases · splits). Kernels of any size up to 63 an axis, any stride.
//
// FLOPs 2·voxels·taps·in·out (padding counted); compulsory bytes each tensor once; actual: the source `taps / ~3` times from
// the caches, weights once a tile of voxels.
// A result whose sums are one block's each may be measured on the way (channel_stats.cuh), for the norm behind it: 5 FLOPs an element
// more, and no pass over it.
// Faster ones: Winograd F(2,3)³ does 3.4 times fewer products for 3³ kernels (the CPU's way); a halo of the source in shared
// memory would read it once instead of once a tap.

#include "channel_stats.cuh"
#include "conv3d.cuh"

using namespace gemm;

// Columns of a block of the packing, and neighbours in memory of each: `PACK` in src/ops/conv3d/cuda.rs.
constexpr uint32_t PACK = 32;

// packed `[place, channel, columns up to fours]` from W `[out, in, taps]`; forward: channels in, columns out; adjoint the
// reverse. A matrix [columns, run] (for each channel if adjoint) is transposed through shared memory, so that neighbouring
// threads read and write neighbours. Grid (tiles of the run, tiles of columns, matrices). 8 bytes an element.
extern "C" __global__ void __launch_bounds__(THREADS) conv3d_pack(const float* weight, Conv c, float* packed) {
    __shared__ float tile[PACK][PACK + 1];
    const uint32_t pitch = (c.columns + 3) / 4 * 4, taps = c.taps[0] * c.taps[1] * c.taps[2];
    const uint32_t run = c.adjoint ? taps : c.channels * taps;
    const uint32_t first = blockIdx.x * PACK, length = min(run - first, PACK);
    const uint32_t first_column = blockIdx.y * PACK, columns = min(c.columns - first_column, PACK);
    weight += ((uint64_t)blockIdx.z * c.columns + first_column) * run + first;
    for (uint32_t i = threadIdx.x; i < columns * length; i += THREADS)
        tile[i / length][i % length] = weight[(uint64_t)(i / length) * run + i % length];
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < length * PACK; i += THREADS) {
        const uint32_t column = i % PACK, at = first + i / PACK;
        if (first_column + column >= pitch) continue;
        const uint32_t channel = c.adjoint ? blockIdx.z : at / taps;
        const uint64_t to = ((uint64_t)packed_place(c, at % taps) * c.channels + channel) * pitch + first_column + column;
        packed[to] = column < columns ? tile[column][i / PACK] : 0.0f;
    }
}

// Target voxels, whose channels may be measured.
struct Targets : Output<ViewOrder> {
    static constexpr bool MEASURES = true;
    Channels channels;

    __device__ Targets(const Output& out, const Channels& channels) : Output(out), channels(channels) {}

    __device__ float4 write(uint32_t m, uint32_t n, int part, const float4& sum, bool first) {
        // The compiler is not to see that it is the same for every row: it would write all of them twice, with and without bias.
        // An offset, for a pointer that comes from nowhere known is read without its state space.
        uint32_t nothing = 0;
        asm volatile("" : "+r"(nothing));
        bias += nothing;
        return Output::write(m, n, part, sum, first);
    }

    template <class T>
    __device__ void measure(const float (&y)[T::TM][T::TN], uint32_t m0, uint32_t n0, void* shared) const {
        if (channels.parts == nullptr) return;
        const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        const uint32_t row = warp / T::WARPS_N * T::WARP_M, height = m0 + row < rows ? rows - m0 - row : 0;
        const uint32_t column = warp % T::WARPS_N * T::WARP_N + lane % T::LANES_N * 4;
        const auto parts = (float (*)[3][T::N])shared;
        const auto place = [&](int i) { return lane / T::LANES_N * 4 + i / 4 * (T::LANES_M * 4) + i % 4; };
#pragma unroll
        for (int n = 0; n < T::TN; n++) {
            float own[T::TM];
#pragma unroll
            for (int i = 0; i < T::TM; i++) own[i] = y[i][n];
            const uint32_t at = column + n / 4 * (T::LANES_N * 4) + n % 4;
            leave_column<T::LANES_N>(parts[warp / T::WARPS_N], at, own, min(height, T::WARP_M), place);
        }
        join_channels<T::THREADS, T::N, T::M / T::WARP_M, T::WARP_M>(channels, shared, n0, rows, columns);
    }
};

// target `[splits][batch, D', H', W', columns]` (+)= source `[batch, D, H, W, channels]` ⋆ packed + bias `[columns]`.
template <class T>
__device__ void correlate(
    const Conv& c, const float* source, const float* packed, const float* bias, float* target, uint32_t splits,
    bool accumulate, const Channels& channels) {
    const View view(c, blockIdx.z / splits);
    const Voxels voxels{
        Divisor(view.rows[0] * view.rows[1] * view.rows[2]), Divisor(view.rows[1] * view.rows[2]), Divisor(view.rows[2])};
    const GatherRows a(c, view, voxels, source);
    const uint32_t m0 = blockIdx.x * T::M, split = blockIdx.z % splits;
    if (m0 >= a.spots) return;
    const uint32_t pitch = (c.columns + 3) / 4 * 4;
    const Columns b{{packed + (uint64_t)view.before * c.channels * pitch, pitch, a.pairs, pitch, true}};
    float* part = target + (uint64_t)split * c.batch * c.target[0] * c.target[1] * c.target[2] * c.columns;
    Output<ViewOrder> out{
        part, c.columns, a.spots, c.columns, bias, 0xffffffffu, accumulate, c.columns % 4 == 0, ViewOrder(c, view, voxels)};
    const uint2 k = split_of(a.pairs, split, splits);
    // The sums of the widest tile leave no registers for it.
    if constexpr (T::N <= 64) {
        Targets measured(out, channels);
        product<T>(a, b, measured, m0, blockIdx.y * T::N, k.x, k.y);
    } else {
        product<T>(a, b, out, m0, blockIdx.y * T::N, k.x, k.y);
    }
}

// dW `[splits][taps · channels, columns]` = sourceᵀ ⋆ target, which is the output's gradient here.
template <class T>
__device__ void weight_gradient(Conv c, const Voxels& voxels, const float* source, const float* target, float* dw) {
    c.adjoint = 0;
    const View view(c, 0);
    const GatherColumns a(c, view, voxels, source);
    const bool vector = c.columns % 4 == 0;
    const Columns b{{target, c.columns, a.spots, c.columns, vector}};
    float* part = dw + (uint64_t)blockIdx.z * a.pairs * c.columns;
    Output<InOrder> out{part, c.columns, a.pairs, c.columns, nullptr, 1, false, vector, {}};
    const uint2 k = split_of(a.spots, blockIdx.z, gridDim.z);
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, k.x, k.y);
}

#define CONV(COLUMNS) \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS, Tile##COLUMNS::BLOCKS) conv3d_correlate_##COLUMNS( \
        Conv c, const float* source, const float* packed, const float* bias, float* target, uint32_t splits, \
        uint32_t accumulate, Channels channels) { \
        correlate<Tile##COLUMNS>(c, source, packed, bias, target, splits, accumulate != 0, channels); \
    } \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS, Tile##COLUMNS::BLOCKS) \
        conv3d_weight_gradient_##COLUMNS(Conv c, Voxels voxels, const float* source, const float* target, float* dw) { \
        weight_gradient<Tile##COLUMNS>(c, voxels, source, target, dw); \
    }

CONV(16)
CONV(32)
CONV(64)
CONV(128)
