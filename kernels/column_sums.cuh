// The gradient of a bias beside that of the weights: dW = dyᵀ·x has dy in shared memory a slice at a time, and the blocks of the
// first tile of features add up its columns there. So dy is not read again, and a launch goes.
//
// Sums: a thread adds its share of a column's slice (4 … 32 rows), and the slices with what each addition loses (Kahan 1965), which
// leaves two units of 2^-24 however many there are: no more than a pairwise sum's.
#pragma once

#include "common.cuh"

// Where they go: `[outputs]`, of several splits each its own; null: not wanted.
struct ColumnSums {
    float* data;
    uint64_t accumulate;
};

// What `Math` has in shared memory.
__device__ inline float unpacked(float x) { return x; }
__device__ inline float unpacked(bf16 x) { return (float)x; }
__device__ inline float unpacked(uint32_t tf32) { return __uint_as_float(tf32); }

// An `Output` of tiles T that also sums the columns of A, whose slices `[SLICE][T::M]` lie in rows PITCH apart. What is summed up
// so far waits in shared memory: the product needs the registers.
template <class Output, class T, int SLICE, int PITCH> struct Summing : Output {
    static constexpr bool SEES_SLICES = true;
    static constexpr int ABREAST = T::M < T::THREADS ? T::M : T::THREADS, COLUMNS = T::M / ABREAST;
    static constexpr int LINES = T::THREADS / ABREAST, SHARE = SLICE / LINES;
    ColumnSums to;

    __device__ Summing(const Output& out, const ColumnSums& to) : Output(out), to(to) {
        if (!wanted()) return;
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) sums()[i][threadIdx.x] = make_float2(0.0f, 0.0f);
    }

    __device__ bool wanted() const { return blockIdx.y == 0 && to.data != nullptr; }

    // Each thread's sums, and what is lost of them.
    __device__ static float2 (&sums())[COLUMNS][T::THREADS] {
        __shared__ float2 sums[COLUMNS][T::THREADS];
        return sums;
    }

    template <class Stored> __device__ void slice(const Stored* data) const {
        if (!wanted()) return;
        data += threadIdx.x / ABREAST * SHARE * PITCH + threadIdx.x % ABREAST;
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < SHARE; k++) sum += unpacked(data[k * PITCH + i * ABREAST]);
            const float2 former = sums()[i][threadIdx.x];
            const float next = sum - former.y, total = former.x + next;
            sums()[i][threadIdx.x] = make_float2(total, (total - former.x) - next);
        }
    }

    // Once the product is done: shares of a column lie ABREAST threads apart.
    __device__ void leave() const {
        __syncthreads();
        if (!wanted() || threadIdx.x >= ABREAST) return;
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            float sum = 0.0f;
#pragma unroll
            for (int line = 0; line < LINES; line++) {
                const float2 share = sums()[i][line * ABREAST + threadIdx.x];
                sum += share.x - share.y;
            }
            const uint32_t m = blockIdx.x * T::M + i * ABREAST + threadIdx.x;
            if (m < this->rows) put(to.data + (uint64_t)blockIdx.z * this->rows + m, sum, to.accumulate != 0);
        }
    }
};
