// Local patches of volumes at real-valued coordinates: what patch sampling and the patch mapping share.
//
// A window's voxels all lie at whole steps from its coordinate, so they share one fractional part. At whole coordinates a
// value is one voxel; neighbours of weight zero are never read. Voxels outside the volume are zero.
#pragma once

#include "common.cuh"

constexpr int SIDE = 7;
constexpr int PATCH = SIDE * SIDE * SIDE;
constexpr int LOCAL_FIRST = -3; // the local window is c − 3 … c + 3
constexpr int WIDE_FIRST = -7;  // the mid-range window is c − 7 … c + 6, 14 voxels an axis
constexpr int WIDE = 2 * SIDE;

// How the 14³ window is reduced to 7³ (`mid_range` of the kernels).
enum Pooling : uint32_t { NONE = 0, AVERAGE = 1, MAXIMUM = 2 };

struct Volumes {
    uint32_t depth, height, width, channels;
    uint32_t points_per_volume;
    uint32_t mid_range; // Pooling
};

// Where a coordinate lies: the voxel below it in each axis and the share of the next one.
struct Position {
    int below[3];
    float fraction[3];
    bool whole;
};

__device__ inline Position position(const float* coordinate, const Volumes& v) {
    // Windows this far outside see zeros only: the clamp keeps the integer arithmetic from overflowing.
    constexpr float FAR = 32.0f;
    const float lengths[3] = {(float)v.depth, (float)v.height, (float)v.width};
    Position p;
    p.whole = true;
    for (int axis = 0; axis < 3; axis++) {
        const float c = fminf(fmaxf(coordinate[axis], -FAR), lengths[axis] + FAR);
        const float below = floorf(c);
        p.below[axis] = (int)below;
        p.fraction[axis] = c - below;
        p.whole = p.whole && p.fraction[axis] == 0.0f;
    }
    return p;
}

// The voxel at (x, y, z) of one volume [depth, height, width, channels], channels c .. c + N; zero outside.
// N is 1, or 4 where the number of channels is a multiple of 4 (then the load is one of 16 bytes).
template <int N> struct Values {
    float at[N];
};

template <int N>
__device__ inline Values<N> voxel(const float* volume, const Volumes& v, int x, int y, int z, uint32_t c) {
    Values<N> values = {};
    if ((unsigned)x < v.depth && (unsigned)y < v.height && (unsigned)z < v.width) {
        const float* from = volume + (((uint64_t)x * v.height + y) * v.width + z) * v.channels + c;
        if constexpr (N == 4) {
            const float4 four = *(const float4*)from;
            values.at[0] = four.x, values.at[1] = four.y, values.at[2] = four.z, values.at[3] = four.w;
        } else {
            for (int n = 0; n < N; n++) values.at[n] = from[n];
        }
    }
    return values;
}

// The value `step` voxels from the coordinate.
template <int N>
__device__ inline Values<N> sample(const float* volume, const Volumes& v, const Position& p, int i, int j, int k, uint32_t c) {
    const int x = p.below[0] + i, y = p.below[1] + j, z = p.below[2] + k;
    if (p.whole) return voxel<N>(volume, v, x, y, z, c);
    Values<N> sum = {};
    for (int dx = 0; dx < 2; dx++) {
        const float wx = dx ? p.fraction[0] : 1.0f - p.fraction[0];
        if (wx == 0.0f) continue;
        for (int dy = 0; dy < 2; dy++) {
            const float wy = wx * (dy ? p.fraction[1] : 1.0f - p.fraction[1]);
            if (wy == 0.0f) continue;
            for (int dz = 0; dz < 2; dz++) {
                const float w = wy * (dz ? p.fraction[2] : 1.0f - p.fraction[2]);
                if (w == 0.0f) continue;
                const Values<N> value = voxel<N>(volume, v, x + dx, y + dy, z + dz, c);
                for (int n = 0; n < N; n++) sum.at[n] = fmaf(w, value.at[n], sum.at[n]);
            }
        }
    }
    return sum;
}

// The larger of two values; the first of equal ones, and NaN if it comes first.
__device__ inline float larger(float a, float b) { return b > a ? b : a; }

// Number of a voxel of the local patch as steps from its corner.
struct Cell {
    int i, j, k;
};

__device__ inline Cell cell(int index) { return {index / (SIDE * SIDE), index / SIDE % SIDE, index % SIDE}; }

// Voxel `index` (of 343) of the local patch, channels c .. c + N.
template <int N>
__device__ inline Values<N> local_value(const float* volume, const Volumes& v, const Position& p, int index, uint32_t c) {
    const Cell at = cell(index);
    return sample<N>(volume, v, p, LOCAL_FIRST + at.i, LOCAL_FIRST + at.j, LOCAL_FIRST + at.k, c);
}

// Voxel `index` (of 343) of the mid-range patch: eight values pooled.
template <int N>
__device__ inline Values<N> mid_range_value(const float* volume, const Volumes& v, const Position& p, int index, uint32_t c) {
    const Cell at = cell(index);
    Values<N> pooled = {};
    for (int corner = 0; corner < 8; corner++) {
        const int i = WIDE_FIRST + 2 * at.i + corner / 4, j = WIDE_FIRST + 2 * at.j + corner / 2 % 2;
        const int k = WIDE_FIRST + 2 * at.k + corner % 2;
        const Values<N> value = sample<N>(volume, v, p, i, j, k, c);
        for (int n = 0; n < N; n++) {
            if (corner == 0) pooled.at[n] = value.at[n];
            else pooled.at[n] = v.mid_range == MAXIMUM ? larger(pooled.at[n], value.at[n]) : pooled.at[n] + value.at[n];
        }
    }
    if (v.mid_range == AVERAGE) {
        for (int n = 0; n < N; n++) pooled.at[n] *= 0.125f;
    }
    return pooled;
}
