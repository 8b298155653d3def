// Products on tensor cores: C = A·B in tiles of M × N, slices along k copied through shared memory, f32 sums in registers.
//
//   A or B in memory --(cp.async, or registers and a conversion)--> shared memory, 16-byte chunks --(ldmatrix)--> mma.sync
//
// Two arithmetics, chosen at compile time:
//   Half   m16n8k16 of bf16: chunks of 8 elements, slices of 32
//   Tf32   m16n8k8 of f32 rounded to 11 bits: chunks of 4, slices of 16
// Chunks of bf16 in memory go to shared memory by cp.async, 16 bytes each, while the slice before is multiplied; f32 (weights are
// read as they are and rounded on the way) and rows that do not begin at 16 bytes go through registers, loaded before and stored
// after that product.
//
// Shared memory holds an operand as it lies in memory: [row][k], rows SLICE + one chunk apart, if its rows run along k; else
// [k][row], rows WIDTH + 8 elements apart, which `ldmatrix.trans` turns. Eight rows of a matrix then lie in eight different groups of four banks: no
// conflicts reading, none storing (but for [k][row] in Tf32, where two of a quarter warp's chunks share a group).
//
// Where A and B come from is the business of loaders, as in gemm.cuh:
//   static constexpr bool ALONG_K       neighbours in memory are neighbours along k
//   Place place(uint32_t row)           what belongs to one row of A, or to one chunk of columns
//   Cursor cursor(uint32_t k)           what belongs to one k, or to the chunk that begins there
//   Spot spot(Place, Cursor)            where the chunk lies, and how much of it exists
//   Raw load(Place, Cursor)             the chunk in registers
//   source                              what is at spots: Narrow, Wide or Either
//
// Sums: a unit adds 16 (8) products to an f32 sum at a time, so that 4096 terms are 256 additions. The bits depend on the sizes
// only. FLOPs 2·M·N·K, padding to whole tiles besides.
// Faster still: more than two slices in flight (sm_80: three of 20 KiB); wgmma on sm_90, which compute_80 does not have.
#pragma once

#include "gemm.cuh"

namespace mma {

// Shared memory's address of a pointer into it.
__device__ inline uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Four 8 × 8 matrices of halves, or their transposes: lane 8q + r points at row r of matrix q.
template <bool TRANSPOSED> __device__ inline void load_matrices(uint32_t (&to)[4], const void* row) {
    const uint32_t at = shared_address(row);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}

// Starts a copy of 16 bytes into shared memory, `bytes` of them from memory and the others zeros; `wait_copies` awaits all of
// this thread.
__device__ inline void start_copy(void* to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
// Sixteen bytes at once: left to itself the compiler makes four stores of some.
__device__ inline void store_chunk(void* to, const uint4& chunk) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(to)), "r"(chunk.x), "r"(chunk.y), "r"(chunk.z),
                 "r"(chunk.w) : "memory");
}
__device__ inline void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

struct Half {
    using Stored = bf16;
    static constexpr int CHUNK = 8, SLICE = 32, STEP = 16;

    // A fragment of A: 16 rows and STEP of k from element (row, k) of an operand in shared memory.
    template <bool ALONG_K, int PITCH> __device__ static void left(uint32_t (&to)[4], const Stored* slice, int row, int k) {
        const int lane = threadIdx.x % WARP, low = lane % 16, high = lane / 16 * 8;
        if (ALONG_K) load_matrices<false>(to, slice + (row + low) * PITCH + k + high);
        else load_matrices<true>(to, slice + (k + high + low % 8) * PITCH + row + low / 8 * 8);
    }
    // Two fragments of B: columns 0 … 7 and 8 … 15.
    template <bool ALONG_K, int PITCH> __device__ static void right(uint32_t (&to)[4], const Stored* slice, int column, int k) {
        const int lane = threadIdx.x % WARP, low = lane % 16, high = lane / 16 * 8;
        if (ALONG_K) load_matrices<false>(to, slice + (column + high + low % 8) * PITCH + k + low / 8 * 8);
        else load_matrices<true>(to, slice + (k + low) * PITCH + column + high);
    }
    __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

struct Tf32 {
    using Stored = uint32_t;
    static constexpr int CHUNK = 4, SLICE = 16, STEP = 8;

    template <bool ALONG_K, int PITCH> __device__ static uint32_t at(const Stored* slice, int row, int k) {
        return ALONG_K ? slice[row * PITCH + k] : slice[k * PITCH + row];
    }
    template <bool ALONG_K, int PITCH> __device__ static void left(uint32_t (&to)[4], const Stored* slice, int row, int k) {
        const int group = threadIdx.x % WARP / 4, member = threadIdx.x % 4;
        for (int i = 0; i < 4; i++) to[i] = at<ALONG_K, PITCH>(slice, row + group + i % 2 * 8, k + member + i / 2 * 4);
    }
    template <bool ALONG_K, int PITCH> __device__ static void right(uint32_t (&to)[4], const Stored* slice, int column, int k) {
        const int group = threadIdx.x % WARP / 4, member = threadIdx.x % 4;
        for (int i = 0; i < 4; i++) to[i] = at<ALONG_K, PITCH>(slice, column + group + i / 2 * 8, k + member + i % 2 * 4);
    }
    __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

// A chunk of an operand: its first element, and how many there are from there on; none or fewer than a chunk: zeros follow.
struct Spot {
    uint64_t first;
    int count;
};

// bf16 in memory, for Half. `vector`: spots lie at whole chunks of the address.
struct Narrow {
    using Math = Half;
    using Raw = uint4;
    const bf16* data;
    bool vector;

    // Whether chunks are copied asynchronously.
    __device__ bool copies() const { return vector; }
    __device__ const void* address(const Spot& spot) const { return spot.count > 0 ? data + spot.first : data; }
    __device__ Raw load(const Spot& spot) const {
        uint16_t bits[8];
#pragma unroll
        for (int i = 0; i < 8; i++) bits[i] = i < spot.count ? __bfloat16_as_ushort(data[spot.first + i]) : 0;
        return joined(bits);
    }
    // The same of elements that lie apart: `offset(i)` is the place of element i, or negative for a zero.
    template <class Offset> __device__ Raw collect(Offset offset) const {
        uint16_t bits[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int64_t at = offset(i);
            bits[i] = at < 0 ? 0 : __bfloat16_as_ushort(data[at]);
        }
        return joined(bits);
    }
    __device__ static Raw joined(const uint16_t (&bits)[8]) {
        return make_uint4(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16, bits[4] | bits[5] << 16, bits[6] | bits[7] << 16);
    }
    __device__ static uint4 pack(const Raw& raw, bool) { return raw; }
    __device__ bool narrow() const { return true; }
};

// The bits of a pair of bf16, the first in the lower half, each rounded to nearest.
__device__ inline uint32_t pair(float first, float second) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
    return *(const uint32_t*)&both;
}

// f32 in memory, for Half.
struct Wide {
    using Math = Half;
    struct Raw {
        float v[8];
    };
    const float* data;
    bool vector;

    __device__ bool copies() const { return false; }
    __device__ const void* address(const Spot&) const { return nullptr; }
    __device__ Raw load(const Spot& spot) const {
        Raw raw;
        if (vector && spot.count >= 8) {
            const float4 a = __ldg((const float4*)(data + spot.first)), b = __ldg((const float4*)(data + spot.first + 4));
            raw = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) raw.v[i] = i < spot.count ? __ldg(data + spot.first + i) : 0.0f;
        }
        return raw;
    }
    __device__ static uint4 pack(const Raw& raw, bool) {
        const float* v = raw.v;
        return make_uint4(pair(v[0], v[1]), pair(v[2], v[3]), pair(v[4], v[5]), pair(v[6], v[7]));
    }
    __device__ bool narrow() const { return false; }
};

// f32 or bf16 in memory, for Tf32.
struct Either {
    using Math = Tf32;
    using Raw = uint4; // four f32, or four bf16 in the first two words
    const void* data;
    bool vector, is_narrow;

    __device__ bool copies() const { return false; }
    __device__ const void* address(const Spot&) const { return nullptr; }
    __device__ Raw load(const Spot& spot) const {
        Raw raw = make_uint4(0, 0, 0, 0);
        if (spot.count <= 0) return raw;
        if (is_narrow) {
            const uint16_t* from = (const uint16_t*)data + spot.first;
            if (vector && spot.count >= 4) {
                const uint2 both = __ldg((const uint2*)from);
                raw.x = both.x, raw.y = both.y;
            } else {
                raw.x = from[0] | (spot.count > 1 ? from[1] << 16 : 0);
                raw.y = (spot.count > 2 ? from[2] : 0) | (spot.count > 3 ? from[3] << 16 : 0);
            }
            return raw;
        }
        const uint32_t* from = (const uint32_t*)data + spot.first;
        if (vector && spot.count >= 4) return __ldg((const uint4*)from);
        raw.x = __ldg(from);
        if (spot.count > 1) raw.y = __ldg(from + 1);
        if (spot.count > 2) raw.z = __ldg(from + 2);
        if (spot.count > 3) raw.w = __ldg(from + 3);
        return raw;
    }
    template <class Offset> __device__ Raw collect(Offset offset) const {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t at = offset(i);
            words[i] = at < 0 ? 0 : is_narrow ? ((const uint16_t*)data)[at] : ((const uint32_t*)data)[at];
        }
        if (is_narrow) return make_uint4(words[0] | words[1] << 16, words[2] | words[3] << 16, 0, 0);
        return make_uint4(words[0], words[1], words[2], words[3]);
    }
    __device__ static uint32_t rounded(uint32_t bits) {
        uint32_t result;
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(__uint_as_float(bits)));
        return result;
    }
    __device__ static uint4 pack(const Raw& raw, bool narrow) {
        if (narrow) return make_uint4(raw.x << 16, raw.x & 0xffff0000u, raw.y << 16, raw.y & 0xffff0000u);
        return make_uint4(rounded(raw.x), rounded(raw.y), rounded(raw.z), rounded(raw.w));
    }
    __device__ bool narrow() const { return is_narrow; }
};

// Bits of the kernels' argument `narrow` (`Math::stored` of src/ops/cuda/gemm.rs): which of the tensors is bf16.
constexpr uint32_t FIRST = 1, SECOND = 2, OUTPUT = 4;

// An operand that is stored as the step's activations, its chunks beginning at multiples of `pitch`; and a weight.
template <class Math> struct Sources;
template <> struct Sources<Half> {
    using Activation = Narrow;
    using Weight = Wide;
    __device__ static Narrow activation(const void* data, uint32_t pitch, bool) { return {(const bf16*)data, pitch % 8 == 0}; }
    __device__ static Wide weight(const float* data, bool vector) { return {data, vector}; }
};
template <> struct Sources<Tf32> {
    using Activation = Either;
    using Weight = Either;
    __device__ static Either activation(const void* data, uint32_t pitch, bool narrow) { return {data, pitch % 4 == 0, narrow}; }
    __device__ static Either weight(const float* data, bool vector) { return {data, vector, false}; }
};

// A row-major matrix `[rows, length]`, rows `pitch` apart, that run along k.
template <class Source> struct Rows {
    static constexpr bool ALONG_K = true;
    using Place = uint32_t;
    using Cursor = uint32_t;
    Source source;
    uint32_t pitch, rows, length;

    __device__ Place place(uint32_t row) const { return row; }
    __device__ Cursor cursor(uint32_t k) const { return k; }
    __device__ Spot spot(Place row, Cursor k) const {
        return {(uint64_t)row * pitch + k, row < rows ? (int)length - (int)k : 0};
    }
    __device__ typename Source::Raw load(Place row, Cursor k) const { return source.load(spot(row, k)); }
};

// The same with a row for each k.
template <class Source> struct Columns {
    static constexpr bool ALONG_K = false;
    using Place = uint32_t;
    using Cursor = uint32_t;
    Source source;
    uint32_t pitch, rows, length;

    __device__ Place place(uint32_t column) const { return column; }
    __device__ Cursor cursor(uint32_t k) const { return k; }
    __device__ Spot spot(Place column, Cursor k) const {
        return {(uint64_t)k * pitch + column, k < rows ? (int)length - (int)column : 0};
    }
    __device__ typename Source::Raw load(Place column, Cursor k) const { return source.load(spot(column, k)); }
};

// One thread's share of an operand's slices. A warp takes 8 rows of shared memory by 4 chunks at a time.
template <class Math, int THREADS, int WIDTH, class Loader> struct Stage {
    static constexpr bool ALONG_K = Loader::ALONG_K;
    static constexpr int CHUNK = Math::CHUNK, SLICE = Math::SLICE, WARPS = THREADS / WARP;
    static constexpr int PITCH = ALONG_K ? SLICE + CHUNK : WIDTH + 8;
    static constexpr int SIZE = (ALONG_K ? WIDTH : SLICE) * PITCH;
    // Warps above one another along k, if rows do not run along it.
    static constexpr int HEIGHT = ALONG_K ? 1 : SLICE / 8;
    // Elements of the other axis between two slots of a thread.
    static constexpr int STEP = ALONG_K ? WARPS * 8 : WARPS / HEIGHT * 4 * CHUNK;
    static constexpr int SLOTS = (WIDTH + STEP - 1) / STEP;
    using Source = decltype(Loader::source);

    const Loader& loader;
    int first, k;
    typename Loader::Place places[SLOTS];
    typename Source::Raw held[SLOTS];

    __device__ Stage(const Loader& loader, uint32_t origin) : loader(loader) {
        const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        first = ALONG_K ? warp * 8 + lane % 8 : (warp / HEIGHT * 4 + lane / 8) * CHUNK;
        k = ALONG_K ? lane / 8 * CHUNK : warp % HEIGHT * 8 + lane % 8;
#pragma unroll
        for (int slot = 0; slot < SLOTS; slot++) places[slot] = loader.place(origin + first + slot * STEP);
    }

    __device__ bool active(int slot) const { return WIDTH % STEP == 0 || first + slot * STEP < WIDTH; }
    __device__ typename Math::Stored* target(typename Math::Stored* slice, int slot) const {
        const int other = first + slot * STEP;
        return slice + (ALONG_K ? other * PITCH + k : k * PITCH + other);
    }

    // Begins to bring the slice at `begin` to `slice`.
    __device__ void load(uint32_t begin, typename Math::Stored* slice) {
        const typename Loader::Cursor cursor = loader.cursor(begin + k);
#pragma unroll
        for (int slot = 0; slot < SLOTS; slot++) {
            if (!active(slot)) continue;
            if (loader.source.copies()) {
                const Spot spot = loader.spot(places[slot], cursor);
                start_copy(target(slice, slot), loader.source.address(spot), min(max(spot.count, 0), CHUNK) * 16 / CHUNK);
            } else {
                held[slot] = loader.load(places[slot], cursor);
            }
        }
    }

    // Ends it.
    __device__ void store(typename Math::Stored* slice) const {
        if (loader.source.copies()) return;
#pragma unroll
        for (int slot = 0; slot < SLOTS; slot++)
            if (active(slot)) store_chunk(target(slice, slot), Source::pack(held[slot], loader.source.narrow()));
    }
};

// C `[rows, columns]` in f32 or bf16, its rows `pitch` apart and in the places that `Order` says, plus a bias row for each
// `rows_per_bias` of them (if any), or added to what is there.
template <class Order> struct Output {
    static constexpr bool MEASURES = false, SEES_SLICES = false;
    void* data;
    bool narrow;
    uint32_t pitch, rows, columns;
    const float* bias;
    uint32_t rows_per_bias;
    bool accumulate;
    Order order;

    // Columns n and n + 1 of row m, a thread's pair number `part` of it; returns what is there now.
    __device__ float2 write(uint32_t m, uint32_t n, int, float a, float b) const {
        const bool both = n + 1 < columns;
        const uint64_t at = order(m) * pitch + n;
        if (bias != nullptr) {
            const float* row = bias + (uint64_t)(m / rows_per_bias) * columns + n;
            a += row[0];
            if (both) b += row[1];
        }
        return narrow ? put((bf16*)data + at, a, b, both) : put((float*)data + at, a, b, both);
    }

    template <class T> __device__ float2 put(T* to, float a, float b, bool both) const {
        if (accumulate) {
            a += (float)to[0];
            if (both) b += (float)to[1];
        }
        if (both && pitch % 2 == 0) {
            store_pair(to, a, b);
        } else {
            to[0] = a;
            if (both) to[1] = b;
        }
        return make_float2((float)(T)a, (float)(T)b);
    }

    __device__ static void store_pair(float* to, float a, float b) { *(float2*)to = make_float2(a, b); }
    __device__ static void store_pair(bf16* to, float a, float b) { *(uint32_t*)to = pair(a, b); }
};

// A tile of C and the part of it that a warp makes; by columns: `TILES` of src/ops/cuda/gemm.rs.
template <int M_, int N_, int WARP_M_, int WARP_N_> struct Tile {
    static constexpr int M = M_, N = N_, WARP_M = WARP_M_, WARP_N = WARP_N_;
    static constexpr int WARPS_N = N / WARP_N, THREADS = M / WARP_M * WARPS_N * WARP;
};
using Tile16 = Tile<256, 16, 64, 16>;
using Tile32 = Tile<128, 32, 32, 32>;
using Tile64 = Tile<64, 64, 32, 32>;
using Tile128 = Tile<128, 128, 64, 32>;

// The tile of C at (m0, n0), summed over k in begin … end; begin is a multiple of SLICE, and end too unless it is that of k.
template <class T, class A, class B, class Out>
__device__ void product(const A& a, const B& b, Out& out, uint32_t m0, uint32_t n0, uint32_t begin, uint32_t end) {
    using Math = typename decltype(A::source)::Math;
    using StageA = Stage<Math, T::THREADS, T::M, A>;
    using StageB = Stage<Math, T::THREADS, T::N, B>;
    constexpr int ROWS = T::WARP_M / 16, PAIRS = T::WARP_N / 16;
    __shared__ __align__(16) typename Math::Stored slices_a[2][StageA::SIZE];
    __shared__ __align__(16) typename Math::Stored slices_b[2][StageB::SIZE];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int row = warp / T::WARPS_N * T::WARP_M, column = warp % T::WARPS_N * T::WARP_N;

    StageA stage_a(a, m0);
    StageB stage_b(b, n0);
    float sums[ROWS][2 * PAIRS][4] = {};
    const auto load = [&](uint32_t k, int buffer) { stage_a.load(k, slices_a[buffer]), stage_b.load(k, slices_b[buffer]); };
    const auto store = [&](int buffer) {
        stage_a.store(slices_a[buffer]), stage_b.store(slices_b[buffer]);
        wait_copies();
    };
    if (begin < end) load(begin, 0), store(0);
    __syncthreads();
    int buffer = 0;
    for (uint32_t k = begin; k < end; k += Math::SLICE) {
        const bool more = k + Math::SLICE < end;
        if (more) load(k + Math::SLICE, buffer ^ 1);
#pragma unroll
        for (int step = 0; step < Math::SLICE; step += Math::STEP) {
            uint32_t left[ROWS][4], right[PAIRS][4];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                Math::template left<A::ALONG_K, StageA::PITCH>(left[i], slices_a[buffer], row + i * 16, step);
#pragma unroll
            for (int j = 0; j < PAIRS; j++)
                Math::template right<B::ALONG_K, StageB::PITCH>(right[j], slices_b[buffer], column + j * 16, step);
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < 2 * PAIRS; j++)
                    Math::multiply(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
        if constexpr (Out::SEES_SLICES) out.slice(slices_a[buffer]);
        buffer ^= 1;
        if (more) store(buffer);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t m = m0 + row + i * 16 + half * 8 + lane / 4;
            if (m >= out.rows) continue;
#pragma unroll
            for (int j = 0; j < 2 * PAIRS; j++) {
                const uint32_t n = n0 + column + j * 8 + lane % 4 * 2;
                float* s = sums[i][j] + half * 2;
                if constexpr (Out::MEASURES) {
                    if (n >= out.columns) continue;
                    const float2 y = out.write(m, n, j, s[0], s[1]);
                    s[0] = y.x, s[1] = y.y;
                } else if (n < out.columns) {
                    out.write(m, n, j, s[0], s[1]);
                }
            }
        }
    if constexpr (Out::MEASURES) out.template measure<T>(sums, m0, n0, slices_a);
}

// Split `split` of `splits` of `length`: begin and end, multiples of Math::SLICE but for the last end.
template <class Math> __device__ inline uint2 split_of(uint32_t length, uint32_t split, uint32_t splits) {
    const uint32_t slices = (length + Math::SLICE - 1) / Math::SLICE, each = (slices + splits - 1) / splits * Math::SLICE;
    return make_uint2(min(split * each, length), min((split + 1) * each, length));
}

} // namespace mma
