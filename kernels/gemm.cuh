// Matrix products in f32: the tile that linear layers and convolutions share.
//
// `C[m, n] = Σ_k A[m, k]·B[k, n]`, a block a tile of C. A block walks along k eight at a time: while it multiplies one slice
// of A and B out of shared memory it loads the next into registers, and writes those to the other of two buffers; one barrier
// a step. Each thread keeps 8 × 8 (or 8 × 4) sums in registers and reads them 16 (12) numbers a k, so that shared memory
// delivers 1 byte an FMA (1.5). Rows of a slice are 4 floats apart from a multiple of 32, which keeps the transposing stores
// free of bank conflicts; lanes of a warp lie 8 × 4 or 4 × 8 over its part of C, so that every 16-byte read of a quarter of
// the warp is one pass.
//
// Where A and B come from is the business of loaders:
//   static constexpr bool ALONG_K       four elements lie side by side along k, else along the other axis
//   Place place(uint32_t fixed)         what belongs to one row of A or to a quad of columns (the axis that is not k)
//   Cursor cursor(uint32_t k)           what belongs to one k, or to the quad that begins there
//   float4 load(Place, Cursor)          four elements; zeros outside
//   float4 finish(float4, Place, k)     what the product sees of them: themselves, or a function that is worth one evaluation
//                                       more than a pass over memory
// and where C goes that of an `Output`: rows, columns and `write`; one that MEASURES gets the sums again as it wrote them
// (`measure`), one that SEES_SLICES is shown each of A in shared memory (`slice`).
//
// Sums: CHAIN products at a time in one register, the chains added up in C itself (by the thread that owns the element). The
// bits depend on the sizes only, not on the tile. Splits of k are further chains, added by `sum_splits`.
//
// FLOPs 2·M·N·K. Bytes: A N/tile times and B M/tile times, most of it from the second-level cache.
// Faster still: cp.async instead of registers (sm_80 on), a pipeline of three slices, 16-byte swizzles instead of padding;
// tensor cores at lower precision.
#pragma once

#include "common.cuh"

namespace gemm {

// Length of a slice along k.
constexpr int SLICE = 8;
// Products that one register sums up: rounding errors grow with the root of it.
constexpr uint32_t CHAIN = 1024;

// A tile of C: M × N, 8 × TN a thread, the lanes of a warp LANES_M × 32 / LANES_M. BLOCKS share a multiprocessor: two of 256
// threads with at most 128 registers each, or one.
template <int M_, int N_, int TN_, int LANES_M_, int BLOCKS_ = 4096 * TN_ / (M_ * N_)> struct Tile {
    static constexpr int M = M_, N = N_, TM = 8, TN = TN_;
    static constexpr int LANES_M = LANES_M_, LANES_N = WARP / LANES_M_;
    static constexpr int WARP_M = LANES_M * TM, WARP_N = LANES_N * TN;
    static constexpr int WARPS_N = N / WARP_N;
    static constexpr int THREADS = M / TM * (N / TN);
    static constexpr int BLOCKS = BLOCKS_;
};

// By columns; `TILES` of src/ops/cuda/gemm.rs.
using Tile16 = Tile<256, 16, 4, 8>;
using Tile32 = Tile<128, 32, 4, 4>;
using Tile64 = Tile<64, 64, 4, 4>;
using Tile128 = Tile<128, 128, 8, 8>;

// Elements i … i + 3 of a row of `length`, zero outside; no row is a row of zeros. `vector`: all rows begin at 16 bytes and
// the length is a multiple of 4.
__device__ inline float4 quad(const float* row, uint32_t i, uint32_t length, bool vector) {
    float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (row == nullptr || i >= length) return value;
    if (vector) return __ldg(reinterpret_cast<const float4*>(row + i));
    value.x = __ldg(row + i);
    if (i + 1 < length) value.y = __ldg(row + i + 1);
    if (i + 2 < length) value.z = __ldg(row + i + 2);
    if (i + 3 < length) value.w = __ldg(row + i + 3);
    return value;
}

// A row-major matrix `[rows, length]`, rows `pitch` apart: its rows run along k, or there is one for each k.
template <bool ALONG_K_> struct Matrix {
    static constexpr bool ALONG_K = ALONG_K_;
    const float* data;
    uint32_t pitch, rows, length;
    bool vector;

    __device__ const float* row(uint32_t i) const { return i < rows ? data + (uint64_t)i * pitch : nullptr; }
    template <class Place> __device__ static float4 finish(const float4& loaded, Place, uint32_t) { return loaded; }
};

// Its rows run along k.
struct Rows : Matrix<true> {
    using Place = const float*;
    using Cursor = uint32_t;
    __device__ Place place(uint32_t i) const { return row(i); }
    __device__ Cursor cursor(uint32_t k) const { return k; }
    __device__ float4 load(Place place, Cursor k) const { return quad(place, k, length, vector); }
};

// There is one row for each k.
struct Columns : Matrix<false> {
    using Place = uint32_t;
    using Cursor = const float*;
    __device__ Place place(uint32_t n) const { return n; }
    __device__ Cursor cursor(uint32_t k) const { return row(k); }
    __device__ float4 load(Place n, Cursor row) const { return quad(row, n, length, vector); }
};

// One thread's share of an operand's slices: from memory into registers, from there into shared memory `[k][width]`.
template <int THREADS, int WIDTH, class Loader> struct Stage {
    static constexpr int PITCH = WIDTH + 4;
    // Neighbouring threads take neighbouring quads of memory.
    static constexpr int LANES = Loader::ALONG_K ? THREADS / (SLICE / 4) : THREADS / SLICE;
    static constexpr int STEP = Loader::ALONG_K ? LANES : 4 * LANES;
    static constexpr int SLOTS = (WIDTH + STEP - 1) / STEP;

    const Loader& loader;
    int first, k;
    uint32_t at; // the k of what is held
    typename Loader::Place places[SLOTS];
    float4 held[SLOTS];

    __device__ Stage(const Loader& loader, uint32_t origin) : loader(loader) {
        const int thread = threadIdx.x;
        first = Loader::ALONG_K ? thread / (SLICE / 4) : thread % LANES * 4;
        k = Loader::ALONG_K ? thread % (SLICE / 4) * 4 : thread / LANES;
#pragma unroll
        for (int slot = 0; slot < SLOTS; slot++) places[slot] = loader.place(origin + first + slot * STEP);
    }

    __device__ bool active(int slot) const { return WIDTH % STEP == 0 || first + slot * STEP < WIDTH; }

    __device__ void load(uint32_t begin) {
        at = begin + k;
        const typename Loader::Cursor cursor = loader.cursor(at);
#pragma unroll
        for (int slot = 0; slot < SLOTS; slot++)
            if (active(slot)) held[slot] = loader.load(places[slot], cursor);
    }

    __device__ void store(float* slice) const {
#pragma unroll
        for (int slot = 0; slot < SLOTS; slot++) {
            if (!active(slot)) continue;
            float* to = slice + k * PITCH + first + slot * STEP;
            const float4 x = loader.finish(held[slot], places[slot], at);
            if (Loader::ALONG_K) {
                to[0] = x.x, to[PITCH] = x.y, to[2 * PITCH] = x.z, to[3 * PITCH] = x.w;
            } else {
                *reinterpret_cast<float4*>(to) = x;
            }
        }
    }
};

// Rows of C as they are numbered.
struct InOrder {
    __device__ uint64_t operator()(uint32_t m) const { return m; }
};

// C `[rows, columns]`, its rows `pitch` apart and in the places that `Order` says, plus a bias row for each
// `rows_per_bias` of them (if any), or added to what is there. `vector` as above.
template <class Order> struct Output {
    static constexpr bool MEASURES = false, SEES_SLICES = false;
    float* data;
    uint32_t pitch, rows, columns;
    const float* bias;
    uint32_t rows_per_bias;
    bool accumulate, vector;
    Order order;

    // Writes four sums of row m, a thread's quad number `part` of it, and returns what is there now; `first`: sums of the
    // first chain.
    __device__ float4 write(uint32_t m, uint32_t n, int, float4 sum, bool first) const {
        float* to = data + order(m) * pitch + n;
        const float* from = nullptr; // what is added
        if (!first || accumulate) from = to;
        else if (bias != nullptr) from = bias + (uint64_t)(m / rows_per_bias) * columns + n;
        if (from != nullptr) {
            sum.x += from[0];
            if (n + 1 < columns) sum.y += from[1];
            if (n + 2 < columns) sum.z += from[2];
            if (n + 3 < columns) sum.w += from[3];
        }
        put(to, n, sum);
        return sum;
    }

    // To columns n … n + 3 that exist.
    __device__ void put(float* to, uint32_t n, const float4& x) const {
        if (vector) {
            *reinterpret_cast<float4*>(to) = x;
            return;
        }
        to[0] = x.x;
        if (n + 1 < columns) to[1] = x.y;
        if (n + 2 < columns) to[2] = x.z;
        if (n + 3 < columns) to[3] = x.w;
    }
};

// The tile of C at (m0, n0), summed over k in begin … end; `begin` and all chains' ends are multiples of SLICE, and loaders
// give zeros from the end of k on.
template <class T, class A, class B, class Out>
__device__ void product(const A& a, const B& b, Out& out, uint32_t m0, uint32_t n0, uint32_t begin, uint32_t end) {
    using StageA = Stage<T::THREADS, T::M, A>;
    using StageB = Stage<T::THREADS, T::N, B>;
    __shared__ __align__(16) float slices_a[2][SLICE * StageA::PITCH];
    __shared__ __align__(16) float slices_b[2][SLICE * StageB::PITCH];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int row = warp / T::WARPS_N * T::WARP_M + lane / T::LANES_N * 4;
    const int column = warp % T::WARPS_N * T::WARP_N + lane % T::LANES_N * 4;
    constexpr int ROW_STEP = T::LANES_M * 4, COLUMN_STEP = T::LANES_N * 4;

    StageA stage_a(a, m0);
    StageB stage_b(b, n0);
    bool first = true;
    uint32_t chain = begin;
    do {
        const uint32_t stop = min(chain + CHAIN, end);
        float sums[T::TM][T::TN] = {};
        if (chain < stop) {
            stage_a.load(chain), stage_b.load(chain);
            stage_a.store(slices_a[0]), stage_b.store(slices_b[0]);
        }
        __syncthreads();
        int buffer = 0;
        for (uint32_t k = chain; k < stop; k += SLICE) {
            const bool more = k + SLICE < stop;
            if (more) stage_a.load(k + SLICE), stage_b.load(k + SLICE);
            // Two at a time: unrolled further, ptxas loads ahead until the sums no longer fit 128 registers.
#pragma unroll 2
            for (int i = 0; i < SLICE; i++) {
                float x[T::TM], y[T::TN];
#pragma unroll
                for (int part = 0; part < T::TM; part += 4)
                    *reinterpret_cast<float4*>(x + part) = *reinterpret_cast<const float4*>(
                        slices_a[buffer] + i * StageA::PITCH + row + part / 4 * ROW_STEP);
#pragma unroll
                for (int part = 0; part < T::TN; part += 4)
                    *reinterpret_cast<float4*>(y + part) = *reinterpret_cast<const float4*>(
                        slices_b[buffer] + i * StageB::PITCH + column + part / 4 * COLUMN_STEP);
#pragma unroll
                for (int m = 0; m < T::TM; m++)
#pragma unroll
                    for (int n = 0; n < T::TN; n++) sums[m][n] = fmaf(x[m], y[n], sums[m][n]);
            }
            if constexpr (Out::SEES_SLICES) out.slice(slices_a[buffer]);
            buffer ^= 1;
            if (more) stage_a.store(slices_a[buffer]), stage_b.store(slices_b[buffer]);
            __syncthreads();
        }
        // Addresses of C must not be held in registers while the products are made: the compiler is not to see that they are
        // the same for every chain.
        uint32_t corner = m0 + row;
        asm volatile("" : "+r"(corner));
#pragma unroll
        for (int i = 0; i < T::TM; i++) {
            const uint32_t m = corner + i / 4 * ROW_STEP + i % 4;
            if (m >= out.rows) continue;
#pragma unroll
            for (int part = 0; part < T::TN; part += 4) {
                const uint32_t n = n0 + column + part / 4 * COLUMN_STEP;
                float* s = sums[i] + part;
                if constexpr (Out::MEASURES) {
                    if (n >= out.columns) continue;
                    const float4 y = out.write(m, n, part / 4, make_float4(s[0], s[1], s[2], s[3]), first);
                    s[0] = y.x, s[1] = y.y, s[2] = y.z, s[3] = y.w;
                } else if (n < out.columns) {
                    out.write(m, n, part / 4, make_float4(s[0], s[1], s[2], s[3]), first);
                }
            }
        }
        if constexpr (Out::MEASURES)
            if (stop >= end) out.template measure<T>(sums, m0, n0, slices_a);
        first = false;
        chain = stop;
    } while (chain < end);
}

// Split `split` of `splits` of `length`: begin and end, multiples of SLICE but for the last end.
__device__ inline uint2 split_of(uint32_t length, uint32_t split, uint32_t splits) {
    const uint32_t slices = (length + SLICE - 1) / SLICE, each = (slices + splits - 1) / splits;
    return make_uint2(min(split * each * SLICE, length), min((split + 1) * each * SLICE, length));
}

} // namespace gemm
