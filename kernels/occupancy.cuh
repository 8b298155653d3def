// The occupancy decoder of one volume in one kernel: features of points in, logits out. Formulas and layout:
// src/ops/fused_decoder/mod.rs.
//
// A block takes a tile of points through all layers. Their activations lie in shared memory `[features][points]` and are
// replaced layer by layer: each thread keeps 8 × 8 sums in registers until nobody reads the tile any more, and its 8 × 8
// elements of the residual as well, for what it adds to is what it computed itself. So one array of activations is enough.
// Weights pass by as a *stream* of 16 KiB slices, in the order in which they are used, each fetched by cp.async while the
// one before it is multiplied; one barrier a slice.
//
// Shared memory: 64 KiB of activations + 2 slices = 96 KiB, which every device of compute capability 8 and above grants.
// `COLUMNS` (64 … 512) features are padded to, so a tile has 256 … 32 points: 8·8 sums of 256 threads.
//
// Quads of points are permuted within eight: quad q of feature k lies at q ^ (k & 7). Then neither the transposing stores of
// the points' features (eight features of one quad), nor those of results (two features four apart), nor any load conflicts.
//
// FLOPs 2·points·(features·2·width + (2·blocks − 1)·width² + width·classes). Bytes: features and logits of each point once;
// the weights once from memory and once a tile from the second-level cache, 16 FLOPs a byte at 512 features. Bound by
// arithmetic on devices whose second-level cache delivers a sixteenth of their f32 FLOPs in bytes.
//
// Faster: tensor cores at lower precision; tiles of twice the points would halve the cache's traffic, but their sums and
// residuals do not fit a multiprocessor's registers.
#pragma once

#include "activation.cuh"
#include "occupancy_stream.cuh"

namespace occupancy {

// Floats of the activations: `TILE` of src/ops/fused_decoder/mod.rs.
constexpr uint32_t TILE = 1 << 14;

// Four neighbours of the tile or of a slice: 16 bytes, always aligned. The compiler makes four stores of one where it loses
// sight of that.
__device__ inline Four get(const float* at) {
    const float4 q = *reinterpret_cast<const float4*>(at);
    return {q.x, q.y, q.z, q.w};
}
__device__ inline void set(float* at, const Four& v) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"((uint32_t)__cvta_generic_to_shared(at)), "f"(v.v[0]),
                 "f"(v.v[1]), "f"(v.v[2]), "f"(v.v[3])
                 : "memory");
}

template <int COLUMNS> struct Shape {
    static constexpr uint32_t POINTS = TILE / COLUMNS, DEPTH = SLICE / COLUMNS;
    static constexpr uint32_t WARPS_N = COLUMNS / 64;

    // Where the four points of a quad lie, for one feature.
    __device__ static uint32_t at(uint32_t feature, uint32_t quad) {
        return feature * POINTS + ((quad & ~7u) | ((quad ^ feature) & 7)) * 4;
    }
};

// A thread's points and features: quads `quad` and `quad + 4`, features `feature … + 3` and `feature + 32 …`.
template <class S> struct Place {
    uint32_t quad, feature;
    bool works;

    __device__ Place(uint32_t width) {
        const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        quad = warp / S::WARPS_N * 8 + lane % 4;
        feature = warp % S::WARPS_N * 64 + lane / 4 * 4;
        works = warp % S::WARPS_N * 64 < width;
    }
    __device__ uint32_t column(int n) const { return feature + n / 4 * 32 + n % 4; }
};

// Σ_k tile[k][point]·slice[k][feature] over `rows` features of the tile, added to the sums.
template <class S>
__device__ void product(Stream<THREADS>& stream, const float* tile, uint32_t rows, const Place<S>& place, float (&sums)[8][8]) {
    const uint32_t columns = SLICE / S::DEPTH;
#pragma unroll 1
    for (uint32_t begin = 0; begin < rows; begin += S::DEPTH) {
        const float* slice = stream.next() + place.feature;
        if (!place.works) continue;
        const uint32_t depth = min(S::DEPTH, rows - begin);
        const float* points = tile + begin * S::POINTS;
#pragma unroll 8
        for (uint32_t k = 0; k < depth; k++) {
            Four x[2], w[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                x[half] = get(points + S::at(k, place.quad + half * 4));
                w[half] = get(slice + k * columns + half * 32);
            }
#pragma unroll
            for (int m = 0; m < 8; m++)
#pragma unroll
                for (int n = 0; n < 8; n++) sums[m][n] = fmaf(x[m / 4].v[m % 4], w[n / 4].v[n % 4], sums[m][n]);
        }
    }
}

// `rows` features of the block's points, from feature `first` on; points beyond `count` are zeros.
template <class S>
__device__ void load_points(const float* x, uint32_t features, uint32_t first, uint32_t rows, uint32_t count, float* tile) {
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    constexpr uint32_t QUADS = S::POINTS / 4;
    for (uint32_t item = warp; item < QUADS * ((rows + WARP - 1) / WARP); item += THREADS / WARP) {
        const uint32_t quad = item % QUADS, k = item / QUADS * WARP + lane;
        if (k >= rows) continue;
        const float* from = x + (uint64_t)quad * 4 * features + first + k;
        Four values;
        for (uint32_t i = 0; i < 4; i++) values.v[i] = quad * 4 + i < count ? __ldg(from + (uint64_t)i * features) : 0.0f;
        set(tile + S::at(k, quad), values);
    }
}

// The tile becomes f(sums + offset), or, at the end of a block, f(sums + offset + residual), and the residual the same.
template <class S, class F>
__device__ void finish(float* tile, const float (&sums)[8][8], const float* offset, bool end, float (&residual)[8][8],
                       const F& f, const Place<S>& place) {
    __syncthreads(); // nobody reads the tile any more
    if (!place.works) return;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const uint32_t column = place.column(n);
        const float shift = __ldg(offset + column);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            Four v;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int m = half * 4 + i;
                v.v[i] = sums[m][n] + shift + (end ? residual[m][n] : 0.0f);
            }
            set(tile + S::at(column, place.quad + half * 4), v);
        }
    }
    // A loop: the function is long, and its arguments need not be in registers all at once.
#pragma unroll 1
    for (int e = 0; e < 16; e++) {
        float* at = tile + S::at(place.column(e / 2), place.quad + e % 2 * 4);
        const Four v = get(at);
        Four y;
#pragma unroll
        for (int i = 0; i < 4; i++) y.v[i] = f.value(v.v[i]);
        if (F::BOUNDED)
#pragma unroll 1
            for (int i = 0; i < 4; i++)
                if (f.extreme(v.pick(i))) y.replace(i, f.extreme_value(v.pick(i)));
        set(at, y);
    }
    if (!end) return;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const Four y = get(tile + S::at(place.column(n), place.quad + half * 4));
#pragma unroll
            for (int i = 0; i < 4; i++) residual[half * 4 + i][n] = y.v[i];
        }
}

// logits `[points, classes]` = Σ_k tile[k][point]·last[class][k]; a point's sum is cut into parts, which depend on COLUMNS only.
template <class S>
__device__ void last_layer(const float* tile, float* parts, const float* last, uint32_t width, uint32_t classes,
                           float* logits, uint32_t count) {
    constexpr uint32_t PARTS = THREADS / S::POINTS;
    const uint32_t point = threadIdx.x % S::POINTS, part = threadIdx.x / S::POINTS;
#pragma unroll 1
    for (uint32_t c = 0; c < classes; c++) {
        float sum = 0.0f;
#pragma unroll 4
        for (uint32_t k = part; k < width; k += PARTS)
            sum = fmaf(tile[S::at(k, point / 4) + point % 4], __ldg(last + (uint64_t)c * width + k), sum);
        __syncthreads();
        parts[threadIdx.x] = sum;
        __syncthreads();
        if (part > 0 || point >= count) continue;
        for (uint32_t i = 1; i < PARTS; i++) sum += parts[i * S::POINTS + point];
        logits[(uint64_t)point * classes + c] = sum;
    }
}

// x [points, features] → logits [points, classes]. `make(numerator, denominator)`: a layer's activation.
template <int COLUMNS, class Make>
__device__ void decode(const float* x, const Decoder& d, float* logits, uint32_t points, Make make) {
    using S = Shape<COLUMNS>;
    extern __shared__ float4 memory[];
    float* tile = reinterpret_cast<float*>(memory);
    const uint32_t begin = blockIdx.x * S::POINTS, count = min(S::POINTS, points - begin);
    const Place<S> place(d.width);
    Stream<THREADS> stream(d.packed, d.slices, tile + TILE);
    float residual[8][8];
#pragma unroll 1
    for (uint32_t i = 0; i <= d.layers; i++) { // the residual's product, then the layers
        float sums[8][8] = {};
        const uint32_t inputs = i < 2 ? d.features : d.width;
#pragma unroll 1
        for (uint32_t first = 0; first < inputs; first += COLUMNS) {
            const uint32_t rows = min((uint32_t)COLUMNS, inputs - first);
            if (i == 0 || i == 1 && inputs > COLUMNS) {
                __syncthreads(); // nobody reads what was there
                load_points<S>(x + (uint64_t)begin * d.features, d.features, first, rows, count, tile);
            }
            product(stream, tile, rows, place, sums);
        }
        const float* offset = d.offsets + i * COLUMNS;
        if (i == 0) {
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float shift = place.works ? __ldg(offset + place.column(n)) : 0.0f;
#pragma unroll
                for (int m = 0; m < 8; m++) residual[m][n] = sums[m][n] + shift;
            }
            continue;
        }
        const float* coefficients = d.coefficients + (i - 1) * (d.numerators + d.denominators);
        finish(tile, sums, offset, i % 2 == 0, residual, make(coefficients, coefficients + d.numerators), place);
    }
    __syncthreads();
    last_layer<S>(tile, tile + TILE, d.last, d.width, d.classes, logits + (uint64_t)begin * d.classes, count);
}

} // namespace occupancy

// One kernel a width; `FUNCTION` makes a layer's activation of `numerator`, `denominator` and `d`.
#define OCCUPANCY(NAME, COLUMNS, FUNCTION)                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                           \
        occupancy_##NAME##_##COLUMNS(const float* x, occupancy::Decoder d, float* logits, uint32_t points) {           \
        occupancy::decode<COLUMNS>(x, d, logits, points, [&](const float* numerator, const float* denominator) {       \
            return FUNCTION;                                                                                           \
        });                                                                                                            \
    }
#define OCCUPANCIES(NAME, FUNCTION)                                                                                    \
    OCCUPANCY(NAME, 64, FUNCTION)                                                                                      \
    OCCUPANCY(NAME, 128, FUNCTION)                                                                                     \
    OCCUPANCY(NAME, 256, FUNCTION)                                                                                     \
    OCCUPANCY(NAME, 512, FUNCTION)
