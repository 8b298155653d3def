// From g = dy·act'(v) to the gradient of what was normalised, in a thread's four channels.
#pragma once

#include "norm.cuh"

// dx = scale·g + slope·(x − mean) + offset; the last two are what flows through the statistics, or 0.
struct Through {
    float mean[4], scale[4], slope[4] = {}, offset[4] = {};

    // sums [items, 2, C]: Σ g and Σ g·(x − μ) of the `rows` rows of each item; group_sums [2, chunks]: Σ γ·g and Σ γ·g·x̂ of the
    // one group, or null. Neither is read if gradients do not flow `through` the statistics.
    __device__ Through(const Vectors& vectors, const Tiling& t, uint32_t items, uint64_t rows, uint32_t chunks, const float* sums,
                       const float* group_sums, bool through) {
        double group[2] = {};
        if (through && group_sums)
            for (uint32_t chunk = 0; chunk < chunks; chunk++)
                for (int which = 0; which < 2; which++) group[which] += group_sums[which * chunks + chunk];
        const Norm& norm = vectors.norm;
        // Unrolled, or the arrays would live in local memory.
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t c = (t.channel() + k) % t.channels;
            const float s = vectors.rescale(blockIdx.z, c);
            mean[k] = vectors.mean(blockIdx.z, c);
            scale[k] = s * vectors.scale(blockIdx.z, c);
            if (!through) continue;
            double total[2] = {group[0], group[1]}, members = (double)items * rows * t.channels;
            if (!group_sums) {
                // A channel of one item, or of all.
                const uint32_t begin = norm.item_group ? blockIdx.z : 0, end = norm.item_group ? blockIdx.z + 1 : items;
                for (uint32_t item = begin; item < end; item++) {
                    const double own = vectors.scale(item, c);
                    total[0] += own * sums[((uint64_t)item * 2) * t.channels + c];
                    total[1] += own * s * sums[((uint64_t)item * 2 + 1) * t.channels + c];
                }
                members = (double)(end - begin) * rows;
            }
            offset[k] = (float)(-s * (total[0] / members));
            slope[k] = (float)(-(double)s * s * (total[1] / members));
        }
    }

    __device__ Four of(const Four& g, const Four& x) const {
        Four d;
        for (int k = 0; k < 4; k++) d.v[k] = fmaf(g.v[k], scale[k], fmaf(x.v[k] - mean[k], slope[k], offset[k]));
        return d;
    }
};
