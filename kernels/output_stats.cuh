// Mean and biased variance of all that a product writes, taken while it writes.
//
// A thread sums what it writes, less the first of it, and the squares; a block joins its threads in f64, first the mean, then
// the squares about it (Chan, Golub, LeVeque 1983), and the last block all of them (last_block.cuh). So the result is not read again:
// 4 bytes an element less, and a launch. 16 bytes a block, 3 FLOPs an element.
#pragma once

#include "gemm.cuh"
#include "last_block.cuh"

// How many elements a thread wrote, and their sums about the first.
struct Meter {
    float shift = 0.0f, sum = 0.0f, squares = 0.0f;
    uint32_t count = 0;

    __device__ void add(float y) {
        if (count == 0) shift = y;
        const float off = y - shift;
        sum += off, squares = fmaf(off, off, squares), count++;
    }

    // parts [blocks, 4]: count, mean, what its rounding left over, squares about it; statistics [2]: mean, variance.
    __device__ void measure(float4* parts, float* statistics, uint32_t* ticket, uint32_t block, uint32_t blocks) const {
        const double elements = block_sum((double)count);
        const double mean = block_sum((double)count * shift + sum) / elements;
        // About the block's mean: Σ(y − mean)² of a thread from its sums about `shift`.
        const double off = shift - mean, own = squares + 2.0 * off * sum + count * off * off;
        const double about = block_sum(fmax(own, 0.0));
        if (threadIdx.x == 0) {
            const float high = (float)mean;
            parts[block] = make_float4((float)elements, high, (float)(mean - high), (float)about);
        }
        if (last_to_arrive(ticket, blocks)) join(parts, statistics, blocks);
    }

    // Each thread some blocks, first their mean.
    __device__ static void join(const float4* parts, float* statistics, uint32_t blocks) {
        double elements = 0.0, total = 0.0;
        for (uint32_t i = threadIdx.x; i < blocks; i += blockDim.x) {
            const float4 p = fresh(parts + i);
            elements += p.x, total += p.x * ((double)p.y + p.z);
        }
        elements = block_sum(elements);
        const double mean = block_sum(total) / elements;
        double about = 0.0;
        for (uint32_t i = threadIdx.x; i < blocks; i += blockDim.x) {
            const float4 p = fresh(parts + i);
            const double off = (double)p.y + p.z - mean;
            about += p.w + p.x * off * off;
        }
        about = block_sum(about);
        if (threadIdx.x == 0) statistics[0] = (float)mean, statistics[1] = (float)(about / elements);
    }
};

// An `Output` that measures what it writes.
struct Measured : gemm::Output<gemm::InOrder> {
    Meter meter;

    __device__ explicit Measured(const Output& out) : Output(out) {}

    __device__ void write(uint32_t m, uint32_t n, int part, const float4& sums, bool first) {
        const float4 y = Output::write(m, n, part, sums, first);
        const float values[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            if (n + i < columns) meter.add(values[i]);
    }
};
