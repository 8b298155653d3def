// Marching cubes: the closed, oriented surface between the voxels above a threshold and the rest.
//
// The passes, tables and order are those of the CPU (src/ops/marching_cubes), so the arrays are equal to the bit. A *slot*
// is a lattice point with the cell above it, the layer before the lattice included; a slot owns three edges and its cell's
// triangles; 32 slots along the last axis are a word, and a word is a warp: lane i is slot i. `pack` makes the inside bits
// by a vote; `place` and `connect` find the index of a vertex or triangle from population counts of the lanes below, so
// no table of vertices exists. Words without a mixed cell end after the words around them are read.
// Bytes: the field once (`pack`), 1/8 byte a slot and pass, 12 bytes a word of workspace, the results once; the field again
// at both ends of crossed edges only. A faster one would keep the neighbouring words of a row in registers.

#include "common.cuh"

struct Lattice {
    uint32_t depth, height, width; // points
    uint32_t words;                // of a row of slots
};

constexpr int BLOCK_WORDS = THREADS / WARP;

__device__ inline uint64_t words_in(const Lattice& l) { return (uint64_t)(l.depth + 1) * (l.height + 1) * l.words; }

// A word of slots: plane, row, place in the row. Slot 0 of each axis is the layer before the lattice.
struct Word {
    uint32_t z, y, w;
};

__device__ inline Word word_at(const Lattice& l, uint64_t index) {
    return {(uint32_t)(index / l.words / (l.height + 1)), (uint32_t)(index / l.words % (l.height + 1)), (uint32_t)(index % l.words)};
}

__device__ inline bool exists(const Lattice& l, uint32_t z, uint32_t y, uint32_t w) {
    return z <= l.depth && y <= l.height && w < l.words;
}

__device__ inline uint64_t index_of(const Lattice& l, uint32_t z, uint32_t y, uint32_t w) {
    return ((uint64_t)z * (l.height + 1) + y) * l.words + w;
}

__device__ inline uint32_t bits_at(const Lattice& l, const uint32_t* inside, uint32_t z, uint32_t y, uint32_t w) {
    return exists(l, z, y, w) ? inside[index_of(l, z, y, w)] : 0;
}

// 32 cells: bit i of corner[c] says whether corner c of cell i is inside.
struct Cells {
    uint32_t corner[8];

    __device__ uint32_t mixed() const {
        uint32_t any = 0, all = ~0u;
        for (int c = 0; c < 8; c++) any |= corner[c], all &= corner[c];
        return any & ~all;
    }
    // Slots whose owned edge along an axis is crossed.
    __device__ uint32_t crossed(int axis) const { return corner[0] ^ corner[4 >> axis]; }
    __device__ int shape(int slot) const {
        int shape = 0;
        for (int c = 0; c < 8; c++) shape |= (corner[c] >> slot & 1) << c;
        return shape;
    }
};

__device__ inline Cells cells_at(const Lattice& l, const uint32_t* inside, uint32_t z, uint32_t y, uint32_t w) {
    Cells cells;
    for (int row = 0; row < 4; row++) {
        const uint32_t here = bits_at(l, inside, z + (row >> 1), y + (row & 1), w);
        cells.corner[2 * row] = here;
        cells.corner[2 * row + 1] = here >> 1 | bits_at(l, inside, z + (row >> 1), y + (row & 1), w + 1) << 31;
    }
    return cells;
}

// For each case the number of triangles, then the edges of their vertices; behind the 256 rows of 16 the twelve edges as
// (corner, axis). Made by the CPU's table and copied to the device.
struct Table {
    const uint8_t* rows;

    __device__ const uint8_t* row(int shape) const { return rows + 16 * shape; }
    __device__ int corner(int edge) const { return rows[256 * 16 + 2 * edge]; }
    __device__ int axis(int edge) const { return rows[256 * 16 + 2 * edge + 1]; }
};

#define for_words(index, l)                                                                                            \
    for (uint64_t index = (uint64_t)blockIdx.x * BLOCK_WORDS + threadIdx.x / WARP; index < words_in(l);                \
         index += (uint64_t)gridDim.x * BLOCK_WORDS)

// Pass 1: inside[word], bit i: is the point of slot i inside?
template <typename T> __device__ void pack(const T* field, uint32_t* inside, const Lattice& l, float threshold) {
    const int lane = threadIdx.x % WARP;
    for_words(index, l) {
        const Word at = word_at(l, index);
        const uint32_t slot = at.w * WARP + lane;
        bool in = false;
        if (at.z > 0 && at.y > 0 && slot > 0 && slot <= l.width) {
            in = (float)field[((uint64_t)(at.z - 1) * l.height + at.y - 1) * l.width + slot - 1] > threshold;
        }
        const uint32_t word = __ballot_sync(ALL_LANES, in);
        if (lane == 0) inside[index] = word;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) mc_pack_f32(const float* field, uint32_t* inside, Lattice l, float threshold) {
    pack(field, inside, l, threshold);
}

extern "C" __global__ void __launch_bounds__(THREADS) mc_pack_u8(const uint8_t* field, uint32_t* inside, Lattice l, float threshold) {
    pack(field, inside, l, threshold);
}

// Pass 2: vertices and triangles of each word. A thread a word.
extern "C" __global__ void __launch_bounds__(THREADS) mc_count(
    const uint32_t* inside, const uint8_t* table, uint32_t* vertices, uint32_t* triangles, Lattice l) {
    const Table t = {table};
    for_elements(index, words_in(l)) {
        const Word at = word_at(l, index);
        const Cells cells = cells_at(l, inside, at.z, at.y, at.w);
        vertices[index] = __popc(cells.crossed(0)) + __popc(cells.crossed(1)) + __popc(cells.crossed(2));
        uint32_t count = 0;
        for (uint32_t mixed = cells.mixed(); mixed; mixed &= mixed - 1) count += t.row(cells.shape(__ffs(mixed) - 1))[0];
        triangles[index] = count;
    }
}

// Value of a slot's point; `outside` beside the lattice.
template <typename T>
__device__ float value_at(const T* field, const Lattice& l, float outside, uint32_t z, uint32_t y, uint32_t x) {
    const bool in = z > 0 && z <= l.depth && y > 0 && y <= l.height && x > 0 && x <= l.width;
    return in ? (float)field[((uint64_t)(z - 1) * l.height + y - 1) * l.width + x - 1] : outside;
}

// Pass 4: positions [vertices, 3], ordered by slot, then axis. Every operation is rounded once, as on the CPU.
template <typename T>
__device__ void place(
    const T* field, const uint32_t* inside, const uint32_t* starts, float* positions, const Lattice& l, float threshold,
    float outside) {
    const int lane = threadIdx.x % WARP;
    const uint32_t below = (1u << lane) - 1;
    for_words(index, l) {
        const Word at = word_at(l, index);
        const Cells cells = cells_at(l, inside, at.z, at.y, at.w);
        uint32_t vertex = starts[index];
        for (int axis = 0; axis < 3; axis++) vertex += __popc(cells.crossed(axis) & below);
        const uint32_t lower[3] = {at.z, at.y, at.w * WARP + lane};
        for (int axis = 0; axis < 3; axis++) {
            if (!(cells.crossed(axis) >> lane & 1)) continue;
            const float a = value_at(field, l, outside, lower[0], lower[1], lower[2]);
            const float b = value_at(field, l, outside, lower[0] + (axis == 0), lower[1] + (axis == 1), lower[2] + (axis == 2));
            float fraction = __fdiv_rn(__fsub_rn(threshold, a), __fsub_rn(b, a));
            if (!(fraction >= 0.0f && fraction <= 1.0f)) fraction = 0.5f;
            for (int k = 0; k < 3; k++) {
                const float whole = __fsub_rn((float)lower[k], 1.0f);
                positions[3 * (uint64_t)vertex + k] = k == axis ? __fadd_rn(whole, fraction) : whole;
            }
            vertex++;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) mc_place_f32(
    const float* field, const uint32_t* inside, const uint32_t* starts, float* positions, Lattice l, float threshold,
    float outside) {
    place(field, inside, starts, positions, l, threshold, outside);
}

extern "C" __global__ void __launch_bounds__(THREADS) mc_place_u8(
    const uint8_t* field, const uint32_t* inside, const uint32_t* starts, float* positions, Lattice l, float threshold,
    float outside) {
    place(field, inside, starts, positions, l, threshold, outside);
}

// The vertex on the edge along `axis` that slot `slot` of the word (z, y, w) owns.
__device__ uint32_t vertex_of(
    const Lattice& l, const uint32_t* inside, const uint32_t* starts, uint32_t z, uint32_t y, uint32_t w, int slot, int axis) {
    const Cells cells = cells_at(l, inside, z, y, w);
    const uint32_t below = (1u << slot) - 1;
    uint32_t vertex = starts[index_of(l, z, y, w)];
    for (int k = 0; k < 3; k++) {
        vertex += __popc(cells.crossed(k) & below);
        if (k < axis) vertex += cells.crossed(k) >> slot & 1;
    }
    return vertex;
}

// Pass 5: triangles [triangles, 3] as indices of vertices.
extern "C" __global__ void __launch_bounds__(THREADS) mc_connect(
    const uint32_t* inside, const uint8_t* table, const uint32_t* vertex_starts, const uint32_t* triangle_starts,
    uint32_t* triangles, Lattice l) {
    const Table t = {table};
    const int lane = threadIdx.x % WARP;
    for_words(index, l) {
        const Word at = word_at(l, index);
        const Cells cells = cells_at(l, inside, at.z, at.y, at.w);
        if (cells.mixed() == 0) continue; // the same for all lanes
        const bool own = cells.mixed() >> lane & 1;
        const uint8_t* row = t.row(own ? cells.shape(lane) : 0);
        const uint32_t count = own ? row[0] : 0;
        uint32_t inclusive = count;
        for (int offset = 1; offset < WARP; offset *= 2) {
            const uint32_t before = __shfl_up_sync(ALL_LANES, inclusive, offset);
            if (lane >= offset) inclusive += before;
        }
        uint64_t out = 3 * (uint64_t)(triangle_starts[index] + inclusive - count);
        for (uint32_t k = 0; k < 3 * count; k++) {
            const int edge = row[1 + k], corner = t.corner(edge);
            const int slot = lane + (corner & 1);
            triangles[out + k] = vertex_of(l, inside, vertex_starts, at.z + (corner >> 2 & 1), at.y + (corner >> 1 & 1),
                at.w + slot / WARP, slot % WARP, t.axis(edge));
        }
    }
}
