// The occupancy decoder of one volume in one kernel, on tensor cores: activations and weights in bf16, sums in f32. The twin
// of occupancy.cuh; formulas and layout: src/ops/fused_decoder/mod.rs.
//
// A warp takes 32 points and 64 features: 2 × 8 products m16n8k16 a step of 16 inputs, 64 sums a thread. As in f32 the tile is
// replaced layer by layer, and what a thread adds to is what it computed itself: the residual's tile beside it needs no
// barrier. Weights are packed in the order of the products' registers, so that a thread's four for two products are 16 bytes
// and a warp reads 512 in a row; they pass by in slices of 16 KiB, as in f32. Activations lie `[points][COLUMNS]`; eight
// features, 16 bytes, of point p are at chunk c ^ (p & 7), so that neither ldmatrix nor a thread's pairs conflict.
//
// Points' features are rounded when they are loaded, but not the coordinates, for a voxel's number may take more than eight
// bits: their three products a feature are made in f32 and begin the sums. The last layer is in f32 as well.
//
// Tiles: TILE = 2^14 elements (32 points of 512 features) for 256 threads need 96 KiB of shared memory, as every device has;
// 2^15 for 512 threads 160 KiB, and the weights pass by half as often: 64 FLOPs a byte of the second-level cache. The bits
// do not depend on it.
#pragma once

#include <cuda_bf16.h>

#include "activation.cuh"
#include "occupancy_stream.cuh"

namespace occupancy {

using Half = __nv_bfloat16;
using Pair = __nv_bfloat162;

// Halves of a slice.
constexpr uint32_t HALVES = 2 * SLICE;

template <int COLUMNS, int TILE> struct HalfShape {
    static constexpr uint32_t POINTS = TILE / COLUMNS, THREADS = TILE / 64, DEPTH = HALVES / COLUMNS;
    static constexpr uint32_t STRIPS = COLUMNS / 64;

    // Where features k and k + 1 of a point lie, k even.
    __device__ static uint32_t at(uint32_t point, uint32_t k) {
        return point * COLUMNS + ((k / 8 & ~7u) | ((k / 8 ^ point) & 7)) * 8 + k % 8;
    }
};

// A warp's first point and feature, and a thread's own: rows `row` and `row + 8` of each 16 points, features `column` and
// `column + 1` of each 8.
template <class S> struct HalfPlace {
    uint32_t point, feature, row, column;
    bool works;

    __device__ HalfPlace(uint32_t width) {
        const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        point = warp / S::STRIPS * 32, feature = warp % S::STRIPS * 64;
        row = lane / 4, column = lane % 4 * 2;
        works = feature < width;
    }
};

using Sums = float[2][8][4]; // 16 points, 8 features, the four of a thread: (row, column), + 1, (row + 8, column), + 1

__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 points and 16 features of the tile.
template <class S> __device__ void load_matrices(uint32_t (&to)[4], const Half* tile, uint32_t point, uint32_t k) {
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(tile + S::at(point + lane % 16, k + lane / 16 * 8));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

// Σ_k tile[point][k]·weight[k][feature] over `rows` features of the tile, added to the sums.
template <class S>
__device__ void product(Stream<S::THREADS>& stream, const Half* tile, uint32_t rows, const HalfPlace<S>& place, Sums& sums) {
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll 1
    for (uint32_t begin = 0; begin < rows; begin += S::DEPTH) {
        const float* slice = stream.next();
        if (!place.works) continue;
        const uint4* weights = reinterpret_cast<const uint4*>(slice) + place.feature / 16 * WARP + lane;
        const uint32_t steps = (min(S::DEPTH, rows - begin) + 15) / 16;
#pragma unroll 1
        for (uint32_t step = 0; step < steps; step++, weights += S::STRIPS * 4 * WARP) {
            uint32_t a[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) load_matrices<S>(a[m], tile, place.point + m * 16, begin + step * 16);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                const uint4 b = weights[n * WARP];
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply(sums[m][2 * n], a[m], b.x, b.y);
                    multiply(sums[m][2 * n + 1], a[m], b.z, b.w);
                }
            }
        }
    }
}

// `rows` features of the block's points, from feature `first` on, and zeros to the next multiple of 16; points beyond `count`
// are zeros.
template <class S>
__device__ void load_points(const float* x, uint32_t features, uint32_t first, uint32_t rows, uint32_t count, Half* tile) {
    const uint32_t lane = threadIdx.x % WARP, padded = (rows + 15) / 16 * 16;
    for (uint32_t point = threadIdx.x / WARP; point < S::POINTS; point += S::THREADS / WARP) {
        const float* from = x + (uint64_t)point * features + first;
        for (uint32_t k = lane; k < padded; k += WARP) {
            const float value = point < count && k < rows ? __ldg(from + k) : 0.0f;
            tile[S::at(point, k & ~1u) + k % 2] = __float2bfloat16_rn(value);
        }
    }
}

// Begins the sums with the share of the coordinates, features `first` to `first + 2` of x: Σ x[point][first + j]·exact[j][·].
template <class S>
__device__ void begin_sums(const float* x, uint32_t features, uint32_t first, uint32_t count, const float* exact,
                           const HalfPlace<S>& place, Sums& sums) {
    const float* weights = exact + place.feature + place.column;
#pragma unroll 1
    for (int j = 0; j < 3; j++) {
        float own[2][2];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t point = place.point + m * 16 + half * 8 + place.row;
                own[m][half] = point < count ? __ldg(x + (uint64_t)point * features + first + j) : 0.0f;
            }
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 w = __ldg(reinterpret_cast<const float2*>(weights + j * (S::STRIPS * 64) + n * 8));
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    sums[m][n][half * 2] = fmaf(own[m][half], w.x, sums[m][n][half * 2]);
                    sums[m][n][half * 2 + 1] = fmaf(own[m][half], w.y, sums[m][n][half * 2 + 1]);
                }
        }
    }
}

// Calls body(sums of a pair, where the pair lies in a tile, its first feature) for each pair of this thread.
template <class S, class Body> __device__ void for_pairs(const HalfPlace<S>& place, Sums& sums, Body body) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        // What the next features need is not to be loaded ahead: there are no registers left for it.
        asm volatile("" ::: "memory");
        const uint32_t feature = place.feature + n * 8 + place.column;
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                body(sums[m][n] + half * 2, S::at(place.point + m * 16 + half * 8 + place.row, feature), feature);
    }
}

// The tile becomes f(sums + offset), or, at the end of a block, f(sums + offset + residual), and the residual the same. An
// argument is rounded on its way through the tile, as one that a layer alone would leave.
template <class S, class F>
__device__ void finish(Half* tile, Half* residual, Sums& sums, const float* offset, bool end, const float* coefficients,
                       const Decoder& d, const HalfPlace<S>& place) {
    __syncthreads(); // nobody reads the tile any more
    if (!place.works) return;
    for_pairs(place, sums, [&](const float* pair, uint32_t at, uint32_t feature) {
        const float2 shift = __ldg(reinterpret_cast<const float2*>(offset + feature));
        float2 v = make_float2(pair[0] + shift.x, pair[1] + shift.y);
        if (end) {
            const float2 r = __bfloat1622float2(*reinterpret_cast<const Pair*>(residual + at));
            v.x += r.x, v.y += r.y;
        }
        *reinterpret_cast<Pair*>(tile + at) = __floats2bfloat162_rn(v.x, v.y);
    });
    // A loop: the function is long.
    const F f(coefficients, coefficients + d.numerators, d.slope);
#pragma unroll 1
    for (uint32_t e = 0; e < 32; e++) {
        const uint32_t point = place.point + e % 4 * 8 + place.row;
        const uint32_t at = S::at(point, place.feature + e / 4 * 8 + place.column);
        const float2 v = __bfloat1622float2(*reinterpret_cast<const Pair*>(tile + at));
        float2 y = make_float2(f.value(v.x), f.value(v.y));
        if (F::BOUNDED) {
            if (f.extreme(v.x)) y.x = f.extreme_value(v.x);
            if (f.extreme(v.y)) y.y = f.extreme_value(v.y);
        }
        const Pair rounded = __floats2bfloat162_rn(y.x, y.y);
        *reinterpret_cast<Pair*>(tile + at) = rounded;
        if (end) *reinterpret_cast<Pair*>(residual + at) = rounded;
    }
}

// logits `[points, classes]` = Σ_k tile[point][k]·last[class][k] in f32, a warp a point.
template <class S>
__device__ void last_layer(const Half* tile, const float* last, uint32_t width, uint32_t classes, float* logits, uint32_t count) {
    const uint32_t lane = threadIdx.x % WARP;
    for (uint32_t point = threadIdx.x / WARP; point < count; point += S::THREADS / WARP)
        for (uint32_t c = 0; c < classes; c++) {
            const float* weights = last + (uint64_t)c * width;
            float sum = 0.0f;
            for (uint32_t k = 2 * lane; k < width; k += 2 * WARP) {
                const float2 y = __bfloat1622float2(*reinterpret_cast<const Pair*>(tile + S::at(point, k)));
                sum = fmaf(y.x, __ldg(weights + k), sum);
                if (k + 1 < width) sum = fmaf(y.y, __ldg(weights + k + 1), sum);
            }
            sum = warp_sum(sum);
            if (lane == 0) logits[(uint64_t)point * classes + c] = sum;
        }
}

// x [points, features] → logits [points, classes].
template <int COLUMNS, int TILE, class F>
__device__ void decode_half(const float* x, const Decoder& d, float* logits, uint32_t points) {
    using S = HalfShape<COLUMNS, TILE>;
    extern __shared__ float4 memory[];
    Half *tile = reinterpret_cast<Half*>(memory), *residual = tile + TILE;
    const uint32_t begin = blockIdx.x * S::POINTS, count = min(S::POINTS, points - begin);
    const float* own = x + (uint64_t)begin * d.features;
    const HalfPlace<S> place(d.width);
    Stream<S::THREADS> stream(d.packed, d.slices, reinterpret_cast<float*>(residual + TILE));
    const float* exact = d.offsets + (1 + d.layers) * COLUMNS; // [2][3][COLUMNS]: of the residual and of the first layer
#pragma unroll 1
    for (uint32_t i = 0; i <= d.layers; i++) { // the residual's product, then the layers
        Sums sums = {};
        if (i < 2) begin_sums<S>(own, d.features, d.coordinates, count, exact + i * 3 * COLUMNS, place, sums);
        const uint32_t inputs = i < 2 ? d.features : d.width;
#pragma unroll 1
        for (uint32_t first = 0; first < inputs; first += COLUMNS) {
            const uint32_t rows = min((uint32_t)COLUMNS, inputs - first);
            if (i == 0 || i == 1 && inputs > COLUMNS) {
                __syncthreads(); // nobody reads what was there
                load_points<S>(own, d.features, first, rows, count, tile);
            }
            product(stream, tile, rows, place, sums);
        }
        const float* offset = d.offsets + i * COLUMNS;
        if (i == 0) {
            if (place.works)
                for_pairs(place, sums, [&](const float* pair, uint32_t at, uint32_t feature) {
                    const float2 shift = __ldg(reinterpret_cast<const float2*>(offset + feature));
                    *reinterpret_cast<Pair*>(residual + at) = __floats2bfloat162_rn(pair[0] + shift.x, pair[1] + shift.y);
                });
            continue;
        }
        const float* coefficients = d.coefficients + (i - 1) * (d.numerators + d.denominators);
        finish<S, F>(tile, residual, sums, offset, i % 2 == 0, coefficients, d, place);
    }
    __syncthreads();
    last_layer<S>(tile, d.last, d.width, d.classes, logits + (uint64_t)begin * d.classes, count);
}

} // namespace occupancy
