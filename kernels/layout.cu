// Copies that change where elements lie: columns of matrices (concatenation, selection, another storage
// type), transposition, Fourier features.
//
// All are bound by memory: 8 bytes an element in f32 (12 where a gradient is added to). Columns are copied by a grid-stride loop
// whose neighbouring threads move neighbouring elements of a row; the transposition goes through 32x33 tiles of shared
// memory, so that both sides are read and written in whole lines and no two lanes meet in a bank. A faster copy would move
// four elements a thread where widths and offsets are multiples of four.

#include "common.cuh"

// to[r·to_stride + c] (+)= from[r·from_stride + c] for rows r < rows, columns c < width.
#define COPY(NAME, FROM, TO)                                                                                           \
    extern "C" __global__ void NAME(const FROM* from, uint64_t from_stride, TO* to, uint64_t to_stride,                \
                                    uint64_t width, uint64_t rows, uint32_t accumulate) {                              \
        for_elements(i, rows * width) {                                                                                \
            const uint64_t row = i / width, column = i % width;                                                        \
            put(&to[row * to_stride + column], (float)from[row * from_stride + column], accumulate);                   \
        }                                                                                                              \
    }

COPY(copy_columns, float, float)
COPY(copy_columns_bf16, bf16, bf16)
COPY(copy_columns_from_bf16, bf16, float)
COPY(copy_columns_to_bf16, float, bf16)

constexpr int TILE = 32;
constexpr int TILE_ROWS = 8; // rows of a tile that a block moves at once

// to[b, j, i] (+)= from[b, i, j]: from [batch, rows, columns], to [batch, columns, rows]. Grid: tiles of columns, tiles of
// rows, batch; block 32 x 8.
extern "C" __global__ void transpose(
    const float* from, float* to, uint32_t rows, uint32_t columns, uint32_t batch, uint32_t accumulate) {
    __shared__ float tile[TILE][TILE + 1];
    const uint64_t matrix = (uint64_t)rows * columns;
    for (uint32_t row_tile = blockIdx.y; row_tile * TILE < rows; row_tile += gridDim.y) {
        for (uint32_t b = blockIdx.z; b < batch; b += gridDim.z) {
            const uint32_t column = blockIdx.x * TILE + threadIdx.x;
            for (int k = threadIdx.y; k < TILE; k += TILE_ROWS) {
                const uint32_t row = row_tile * TILE + k;
                if (row < rows && column < columns) tile[k][threadIdx.x] = from[b * matrix + (uint64_t)row * columns + column];
            }
            __syncthreads();
            const uint32_t row = row_tile * TILE + threadIdx.x;
            for (int k = threadIdx.y; k < TILE; k += TILE_ROWS) {
                const uint32_t to_row = blockIdx.x * TILE + k;
                if (row < rows && to_row < columns) {
                    put(&to[b * matrix + (uint64_t)to_row * rows + row], tile[threadIdx.x][k], accumulate);
                }
            }
            __syncthreads();
        }
    }
}

// Coordinates are voxel indices and frequencies several cycles a voxel: the phase is formed and reduced in f64.
__device__ double phase(const float* c, const float* b, uint32_t axes, uint32_t features, uint32_t f) {
    double turns = 0.0;
    for (uint32_t axis = 0; axis < axes; axis++) turns += (double)c[axis] * (double)b[axis * features + f];
    return turns;
}

// y[p] = [cos 2π(c·b) | sin 2π(c·b)]: c [points, axes], b [axes, features], y [points, 2·features]. A thread a pair.
extern "C" __global__ void fourier_forward(
    const float* c, const float* b, float* y, uint64_t points, uint32_t axes, uint32_t features) {
    for_elements(i, points * features) {
        const uint64_t point = i / features;
        const uint32_t f = i % features;
        double sine, cosine;
        sincospi(2.0 * phase(c + point * axes, b, axes, features, f), &sine, &cosine);
        y[point * 2 * features + f] = (float)cosine;
        y[point * 2 * features + features + f] = (float)sine;
    }
}

// dc[p, a] (+)= Σ_f 2π·b[a, f]·(cos·dy[features + f] − sin·dy[f]). A thread a point.
extern "C" __global__ void fourier_backward(
    const float* c, const float* b, const float* dy, float* dc, uint64_t points, uint32_t axes, uint32_t features,
    uint32_t accumulate) {
    constexpr double TAU = 6.283185307179586;
    for_elements(i, points * axes) {
        const uint64_t point = i / axes;
        const uint32_t axis = i % axes;
        double sum = 0.0;
        for (uint32_t f = 0; f < features; f++) {
            double sine, cosine;
            sincospi(2.0 * phase(c + point * axes, b, axes, features, f), &sine, &cosine);
            const float* g = dy + point * 2 * features;
            sum += TAU * (cosine * g[features + f] - sine * g[f]) * b[axis * features + f];
        }
        put(&dc[i], (float)sum, accumulate);
    }
}
