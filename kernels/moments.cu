// Mean and biased variance of groups of elements.
//
// `moments_pieces`: tiles of tiles.cuh. A thread takes eight rows at a time into registers; the mean of its first eight is a
// shift about which it sums differences and their squares in f32, eight terms at a time. A block joins its threads in f64:
// first the mean, then the squares about it (Chan, Golub, LeVeque 1983), so a large mean costs no accuracy.
// Moves 4 bytes an element, and 12 bytes a channel and piece; 4 FLOPs an element.
//
// `moments_join`: the same over the pieces of each group; small.
//
// A faster one would compute the statistics where the elements are made, in the epilogue of a convolution or product.

#include "tiles.cuh"

constexpr int BATCH = 8;

// x [items, length] → partials [items, pieces, 3, width]: mean, what its rounding left over, squares about it.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL(moments_pieces)(const real* x, float* partials, Tiling t) {
    __shared__ double parts[4][THREADS];
    float shift[4] = {}, sum[4] = {}, square[4] = {};
    uint32_t count[4] = {};
    if (t.works()) {
        const real* item = x + blockIdx.z * t.length;
        const uint64_t stride = (uint64_t)t.lanes * t.width;
        uint64_t at = ((uint64_t)blockIdx.x * t.lanes * t.steps + t.lane()) * t.width + t.channel();
#pragma unroll 1
        for (uint32_t step = 0; step < t.steps && at < t.length; step += BATCH) {
            Four rows[BATCH];
            uint32_t there[BATCH];
            for (int i = 0; i < BATCH; i++, at += stride) {
                there[i] = step + i < t.steps && at < t.length ? (uint32_t)min(t.length - at, (uint64_t)4) : 0;
                rows[i] = load_four(item + at, there[i]);
            }
            for (int k = 0; k < 4; k++) {
                if (step == 0) {
                    float first = 0.0f, terms = 0.0f;
                    for (int i = 0; i < BATCH; i++) first += rows[i].v[k], terms += k < there[i] ? 1.0f : 0.0f;
                    shift[k] = terms > 0.0f ? first / terms : 0.0f;
                }
                float s = 0.0f, q = 0.0f;
                for (int i = 0; i < BATCH; i++) {
                    const float centred = k < there[i] ? rows[i].v[k] - shift[k] : 0.0f;
                    s += centred;
                    q = fmaf(centred, centred, q);
                    count[k] += k < there[i];
                }
                sum[k] += s;
                square[k] += q;
            }
        }
    }
    double values[4];
    for (int k = 0; k < 4; k++) values[k] = (double)count[k] * shift[k] + sum[k];
    sum_lanes(t, values, parts);
    const bool first = t.lane() == 0;
    if (first)
        for (int k = 0; k < 4; k++) {
            const uint32_t all = t.rows_in(blockIdx.x, t.channel() + k);
            parts[k][threadIdx.x] = all > 0 ? values[k] / all : 0.0;
        }
    __syncthreads();
    double mean[4];
    for (int k = 0; k < 4; k++) {
        mean[k] = parts[k][t.column()];
        // Σ (x − mean)² from sums about another point.
        const double off = shift[k] - mean[k];
        values[k] = count[k] > 0 ? square[k] + off * (2.0 * sum[k] + count[k] * off) : 0.0;
    }
    __syncthreads();
    sum_lanes(t, values, parts);
    if (first && t.works()) {
        float* out = partials + ((uint64_t)blockIdx.z * t.pieces + blockIdx.x) * 3 * t.width + t.channel();
        for (int k = 0; k < 4; k++) {
            const float high = (float)mean[k];
            out[k] = high;
            out[t.width + k] = (float)(mean[k] - high);
            out[2 * t.width + k] = (float)(values[k] < 0.0 ? 0.0 : values[k]);
        }
    }
}

#ifndef BF16 // f32 in every precision
// partials → statistics [2, items·channels]. A block has `span` channels (a power of two, at most 32) of one item side by
// side, and 256/span pieces at a time.
extern "C" __global__ void __launch_bounds__(THREADS)
    moments_join(const float* partials, float* statistics, uint32_t span, Tiling t) {
    __shared__ double parts[THREADS];
    const uint32_t channel = blockIdx.x * span + threadIdx.x % span, lane = threadIdx.x / span, lanes = THREADS / span;
    const uint64_t groups = (uint64_t)gridDim.y * t.channels;
    const float* item = partials + (uint64_t)blockIdx.y * t.pieces * 3 * t.width;
    const double count = (double)(t.length / t.channels);
    double mean = 0.0;
    for (int round = 0; round < 2; round++) {
        double sum = 0.0;
        if (channel < t.channels)
            for (uint32_t piece = lane; piece < t.pieces; piece += lanes)
                for (uint32_t c = channel; c < t.width; c += t.channels) {
                    const float* at = item + (uint64_t)piece * 3 * t.width + c;
                    const double rows = t.rows_in(piece, c), part = (double)at[0] + at[t.width];
                    sum += round == 0 ? rows * part : at[2 * t.width] + rows * (part - mean) * (part - mean);
                }
        parts[threadIdx.x] = sum;
        __syncthreads();
        for (uint32_t stride = lanes / 2; stride > 0; stride /= 2) {
            if (lane < stride) parts[threadIdx.x] += parts[threadIdx.x + stride * span];
            __syncthreads();
        }
        const double total = parts[threadIdx.x % span] / count;
        if (lane == 0 && channel < t.channels)
            statistics[round * groups + (uint64_t)blockIdx.y * t.channels + channel] = (float)total;
        mean = total;
        __syncthreads();
    }
}
#endif
