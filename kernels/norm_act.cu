// Normalisation's backward pass, after its first kernel: the page is norm_act.cuh.

#include "norm_through.cuh"

#ifndef BF16 // f32 in every precision
// Where a gradient goes, and whether it is added there; null: not wanted.
struct Target {
    float* out;
    uint64_t accumulate;

    __device__ void write(uint64_t i, double value) const {
        if (out) put(out + i, (float)value, accumulate != 0);
    }
};

// Joins what the pieces of `first` left. Block b < chunks: `span` channels (a power of two, at most 32) of all items; block
// `chunks`: the coefficients.
//   sums [items, 2, C]: Σ g and Σ g·(x − μ);  group_sums [2, chunks] (one group only, else null): Σ γ·g and Σ γ·g·x̂
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_act_sums(const float* channel_sums, const float* coefficient_sums, const float* statistics, const float* gamma,
                  Norm norm, uint32_t items, uint32_t span, uint32_t chunks, uint64_t blocks, float* sums,
                  float* group_sums, Target dbeta, Target dgamma, Target dnumerator, uint32_t numerators,
                  Target ddenominator, uint32_t denominators, Tiling t) {
    __shared__ double parts[2][THREADS];
    if (blockIdx.x == chunks) {
        // A warp a coefficient.
        const uint32_t lane = threadIdx.x % WARP;
        for (uint32_t k = threadIdx.x / WARP; k < numerators + denominators; k += THREADS / WARP) {
            double sum = 0.0;
            for (uint64_t block = lane; block < blocks; block += WARP) sum += coefficient_sums[k * blocks + block];
            sum = warp_sum(sum);
            if (lane == 0 && k < numerators) dnumerator.write(k, sum);
            if (lane == 0 && k >= numerators) ddenominator.write(k - numerators, sum);
        }
        return;
    }
    const Vectors vectors{statistics, gamma, nullptr, norm};
    const uint32_t c = blockIdx.x * span + threadIdx.x % span, lane = threadIdx.x / span, lanes = THREADS / span;
    double whole[2] = {}, grouped[2] = {};
    for (uint32_t item = 0; item < items; item++) {
        double part[2] = {};
        if (c < t.channels)
            for (uint32_t piece = lane; piece < t.pieces; piece += lanes)
                for (uint32_t virtual_c = c; virtual_c < t.width; virtual_c += t.channels) {
                    const float* at = channel_sums + ((uint64_t)item * t.pieces + piece) * 2 * t.width + virtual_c;
                    part[0] += at[0];
                    part[1] += at[t.width];
                }
        for (int which = 0; which < 2; which++) parts[which][threadIdx.x] = part[which];
        __syncthreads();
        for (uint32_t stride = lanes / 2; stride > 0; stride /= 2) {
            if (lane < stride)
                for (int which = 0; which < 2; which++)
                    parts[which][threadIdx.x] += parts[which][threadIdx.x + stride * span];
            __syncthreads();
        }
        if (lane == 0 && c < t.channels) {
            const double g = parts[0][threadIdx.x], product = parts[1][threadIdx.x];
            const double times_input = product * vectors.rescale(item, c), scale = vectors.scale(item, c);
            sums[((uint64_t)item * 2) * t.channels + c] = (float)g;
            sums[((uint64_t)item * 2 + 1) * t.channels + c] = (float)product;
            if (norm.item_beta) dbeta.write((uint64_t)item * t.channels + c, g);
            if (norm.item_gamma) dgamma.write((uint64_t)item * t.channels + c, times_input);
            whole[0] += g, whole[1] += times_input;
            grouped[0] += scale * g, grouped[1] += scale * times_input;
        }
        __syncthreads();
    }
    if (lane == 0 && c < t.channels) {
        if (!norm.item_beta) dbeta.write(c, whole[0]);
        if (!norm.item_gamma) dgamma.write(c, whole[1]);
    }
    // Threads without a channel hold zeros; the first warp has all others.
    if (group_sums && threadIdx.x < WARP)
        for (int which = 0; which < 2; which++) {
            const double sum = warp_sum(grouped[which]);
            if (threadIdx.x == 0) group_sums[which * chunks + blockIdx.x] = (float)sum;
        }
}
#endif

// dx (+)= s·γ·g, and if `through` the statistics − s·mean(γ·g) − s²·(x − μ)·mean(γ·g·x̂), means over the group.
// g or x may be dx itself; x may be null if not `through`.
extern "C" __global__ void __launch_bounds__(THREADS)
    KERNEL(norm_act_second)(const real* g, const real* x, const float* statistics, const float* gamma, Norm norm,
                    uint32_t items, uint32_t chunks, const float* sums, const float* group_sums, uint32_t through,
                    real* dx, uint32_t accumulate, Tiling t) {
    if (!t.works()) return;
    const Through back(Vectors{statistics, gamma, nullptr, norm}, t, items, t.length / t.channels, chunks, sums, group_sums, through);
    for_fours(t, [&](uint64_t at, uint32_t count) {
        const Four own = load_four(g + at, count);
        Four d;
        if (through) d = back.of(own, load_four(x + at, count));
        else
            for (int k = 0; k < 4; k++) d.v[k] = own.v[k] * back.scale[k];
        if (accumulate) {
            const Four former = load_four(dx + at, count);
            for (int k = 0; k < 4; k++) d.v[k] += former.v[k];
        }
        store_four(dx + at, d, count);
    });
}

#ifndef BF16 // f32 in every precision
// Rows of scale and shift, channels, and groups: the channels, or one.
struct Grouped {
    uint32_t items, channels, groups;
};

// slope, offset [C] ← −s·mean(γ·g·x̂) and −s·mean(γ·g) of each channel's group of `count` elements, from products and sums
// [items, C], Σ g·x̂ and Σ g: what flows through the statistics of a norm that runs in pieces. One block.
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_through(const float* gamma, const float* statistics, const float* products, const float* sums, Grouped of,
                 float epsilon, double count, float* slope, float* offset) {
    double whole[2] = {};
    if (of.groups == 1) {
        for (uint64_t i = threadIdx.x; i < (uint64_t)of.items * of.channels; i += THREADS)
            whole[0] += (double)gamma[i] * products[i], whole[1] += (double)gamma[i] * sums[i];
        for (int which = 0; which < 2; which++) whole[which] = block_sum(whole[which]);
    }
    for (uint32_t c = threadIdx.x; c < of.channels; c += THREADS) {
        double total[2] = {whole[0], whole[1]};
        for (uint64_t i = c; of.groups > 1 && i < (uint64_t)of.items * of.channels; i += of.channels)
            total[0] += (double)gamma[i] * products[i], total[1] += (double)gamma[i] * sums[i];
        const double variance = statistics[of.groups + (of.groups > 1 ? c : 0)], scale = 1.0 / sqrt(variance + (double)epsilon);
        slope[c] = (float)(-scale * total[0] / count);
        offset[c] = (float)(-scale * total[1] / count);
    }
}
#endif
