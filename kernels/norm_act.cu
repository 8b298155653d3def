// Normalisation, affine map, residual and activation in one pass each way; with nothing but an activation it is the op
// `activation`. Formulas: src/ops/norm_act/mod.rs.
//
// Tiles of tiles.cuh: a thread keeps the numbers of its four channels and the activation's coefficients in registers and
// goes down the rows, so every element moves once, 16 bytes a thread and access.
//
//   norm_act_NAME         y = act(γ·x̂ + β [+ r]) [+ r]       8 bytes an element, 12 with a residual
//   norm_act_first_NAME   g = dy·act'(v), sums of a piece     12 bytes an element (16 with a residual in v)
//   norm_act_sums         joins the pieces' sums              small
//   norm_act_second       dx from g                           12 bytes an element
//
// FLOPs: 4 + a forward, 12 + 2a backward (a: the activation's). At 5/4 Padé units that is 2 to 3 FLOPs a byte: bound by
// memory on every device. Sums: a thread adds at most 256 terms in f32, a block pairwise, pieces are joined in f64.
//
// A faster one would do all this in the prologue of the product or convolution that reads y, and never write y.

#include "activation.cuh"
#include "tiles.cuh"

// What the vectors are indexed by: element of group, scale or shift = item·(item's stride) + channel·(channel's stride).
struct Norm {
    float epsilon;
    uint32_t groups;        // in all; 0: no statistics
    uint32_t item_group;    // 0, or the channels (instance norm)
    uint32_t channel_group; // 0 (one group) or 1
    uint32_t item_gamma;    // 0, or the channels
    uint32_t item_beta;     // 0, or the channels
};

struct Vectors {
    const float* statistics; // [2, groups], or null
    const float* gamma;      // [C] or [items, C], or null
    const float* beta;       // [C] or [items, C], or null
    Norm norm;

    __device__ uint64_t group(uint64_t item, uint32_t c) const {
        return item * norm.item_group + (uint64_t)c * norm.channel_group;
    }
    __device__ float mean(uint64_t item, uint32_t c) const { return statistics ? statistics[group(item, c)] : 0.0f; }
    // 1/√(σ² + ε)
    __device__ float rescale(uint64_t item, uint32_t c) const {
        return statistics ? 1.0f / sqrtf(statistics[norm.groups + group(item, c)] + norm.epsilon) : 1.0f;
    }
    __device__ float scale(uint64_t item, uint32_t c) const { return gamma ? gamma[item * norm.item_gamma + c] : 1.0f; }
    __device__ float shift(uint64_t item, uint32_t c) const { return beta ? beta[item * norm.item_beta + c] : 0.0f; }
};

// The numbers of a thread's four channels.
struct Affine {
    float mean[4], scale[4], shift[4];

    __device__ Affine(const Vectors& v, const Tiling& t) {
        for (int k = 0; k < 4; k++) {
            const uint32_t c = t.works() ? (t.channel() + k) % t.channels : 0;
            mean[k] = v.mean(blockIdx.z, c);
            scale[k] = v.rescale(blockIdx.z, c) * v.scale(blockIdx.z, c);
            shift[k] = v.shift(blockIdx.z, c);
        }
    }
    // γ·x̂ + (β + r)
    __device__ Four map(const Four& x, const Four& r) const {
        Four v;
        for (int k = 0; k < 4; k++) v.v[k] = fmaf(x.v[k] - mean[k], scale[k], shift[k] + r.v[k]);
        return v;
    }
};

// x, before, after, y [items, rows, C]; `before` is added to the activation's argument, `after` to its value, or null.
template <class F>
__device__ void forward(const float* x, const Vectors& vectors, const float* before, const float* after, const F& f,
                        float* y, const Tiling& t) {
    const Affine affine(vectors, t);
    bool extreme = false;
    for_fours(t, [&](uint64_t at, uint32_t count) {
        const Four r = before ? load_four(before + at, count) : Four{};
        Four v = values(f, affine.map(load_four(x + at, count), r), extreme);
        if (after) {
            const Four a = load_four(after + at, count);
            for (int k = 0; k < 4; k++) v.v[k] += a.v[k];
        }
        store_four(y + at, v, count);
    });
    if (!F::BOUNDED || !extreme) return;
    for_fours(t, [&](uint64_t at, uint32_t count) {
        const Four r = before ? load_four(before + at, count) : Four{};
        const Four v = affine.map(load_four(x + at, count), r);
#pragma unroll 1
        for (int k = 0; k < count; k++)
            if (F::extreme(v.pick(k))) y[at + k] = f.extreme_value(v.pick(k)) + (after ? after[at + k] : 0.0f);
    });
}

// dy → g (may be dy itself, or null if the activation is the identity); sums of the piece:
// channel_sums [items, pieces, 2, width] (Σ g and Σ g·(x − μ); null if not wanted), coefficient_sums [K, blocks].
template <class F>
__device__ void first(const float* dy, const float* x, const Vectors& vectors, const float* before, const F& f,
                      float* g, float* channel_sums, float* coefficient_sums, const Tiling& t) {
    constexpr int K = F::COEFFICIENTS;
    __shared__ float parts[8][THREADS];
    const Affine affine(vectors, t);
    float sums[8] = {}, coefficients[K > 0 ? K : 1] = {};
    bool extreme = false;
    for_fours(t, [&](uint64_t at, uint32_t count) {
        Four d = load_four(dy + at, count);
        const Four value = load_four(x + at, count);
        if (g) {
            const Four r = before ? load_four(before + at, count) : Four{}, v = affine.map(value, r);
            Four out = gradients(f, v, d, coefficients, extreme);
            // Where the argument is extreme dy stays for the second time.
            for (int k = 0; k < 4; k++) {
                const float slope = out.v[k];
                out.v[k] = F::extreme(v.v[k]) ? d.v[k] : slope;
                d.v[k] = slope;
            }
            store_four(g + at, out, count);
        }
        if (channel_sums)
            for (int k = 0; k < 4; k++) {
                // Where nothing is loaded d is 0, but for a slope that is not finite.
                const float own = k < count ? d.v[k] : 0.0f;
                sums[k] += own;
                sums[4 + k] = fmaf(own, value.v[k] - affine.mean[k], sums[4 + k]);
            }
    });
    if (F::BOUNDED && extreme && g)
        for_fours(t, [&](uint64_t at, uint32_t count) {
            const Four value = load_four(x + at, count), r = before ? load_four(before + at, count) : Four{};
            const Four v = affine.map(value, r);
#pragma unroll 1
            for (int k = 0; k < count; k++) {
                if (!F::extreme(v.pick(k))) continue;
                const float d = f.extreme_gradient(v.pick(k), g[at + k], coefficients);
                g[at + k] = d;
                for (int j = 0; j < 4; j++)
                    if (j == k) {
                        sums[j] += d;
                        sums[4 + j] = fmaf(d, value.v[j] - affine.mean[j], sums[4 + j]);
                    }
            }
        });
    if (channel_sums) {
        sum_lanes(t, sums, parts);
        if (t.lane() == 0 && t.works()) {
            float* out = channel_sums + ((uint64_t)blockIdx.z * t.pieces + blockIdx.x) * 2 * t.width + t.channel();
            for (int k = 0; k < 4; k++) out[k] = sums[k], out[t.width + k] = sums[4 + k];
        }
    }
    if constexpr (K > 0) {
        f.finish(coefficients);
        const uint32_t warp = threadIdx.x / WARP;
        __syncthreads();
        for (int k = 0; k < K; k++) {
            const float sum = warp_sum(coefficients[k]);
            if (threadIdx.x % WARP == 0) parts[0][warp * 32 + k] = sum;
        }
        __syncthreads();
        if (threadIdx.x < K) {
            double sum = 0.0;
            for (uint32_t w = 0; w < THREADS / WARP; w++) sum += parts[0][w * 32 + threadIdx.x];
            const uint64_t blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
            const uint64_t block = ((uint64_t)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
            coefficient_sums[threadIdx.x * blocks + block] = (float)sum;
        }
    }
}

// `numerator` and `denominator`: the activation's learnt parameters, or null; `slope`: a leaky rectifier's given one.
#define KERNELS(NAME, F)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                           \
        norm_act_##NAME(const float* x, const float* statistics, const float* gamma, const float* beta, Norm norm,     \
                        const float* before, const float* numerator, const float* denominator, float slope,            \
                        const float* after, float* y, Tiling t) {                                                      \
        forward(x, Vectors{statistics, gamma, beta, norm}, before, after, F(numerator, denominator, slope), y, t);     \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        norm_act_first_##NAME(const float* x, const float* statistics, const float* gamma, const float* beta,          \
                              Norm norm, const float* before, const float* numerator, const float* denominator,        \
                              float slope, const float* dy, float* g, float* channel_sums, float* coefficient_sums,    \
                              Tiling t) {                                                                              \
        first(dy, x, Vectors{statistics, gamma, beta, norm}, before, F(numerator, denominator, slope), g, channel_sums, \
              coefficient_sums, t);                                                                      \
    }
FOR_ACTIVATIONS(KERNELS)

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

// dx (+)= s·γ·g, and if `through` the statistics − s·mean(γ·g) − s²·(x − μ)·mean(γ·g·x̂), means over the group.
// g or x may be dx itself; x may be null if not `through`.
extern "C" __global__ void __launch_bounds__(THREADS)
    norm_act_second(const float* g, const float* x, const float* statistics, const float* gamma, Norm norm,
                    uint32_t items, uint32_t chunks, const float* sums, const float* group_sums, uint32_t through,
                    float* dx, uint32_t accumulate, Tiling t) {
    if (!t.works()) return;
    const Vectors vectors{statistics, gamma, nullptr, norm};
    const uint64_t rows = t.length / t.channels;
    // Σ γ·g and Σ γ·g·x̂ of the one group.
    double group[2] = {};
    if (through && group_sums)
        for (uint32_t chunk = 0; chunk < chunks; chunk++)
            for (int which = 0; which < 2; which++) group[which] += group_sums[which * chunks + chunk];
    float mean[4], scale[4], slope[4] = {}, offset[4] = {};
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
    for_fours(t, [&](uint64_t at, uint32_t count) {
        const Four own = load_four(g + at, count);
        Four d;
        if (through) {
            const Four value = load_four(x + at, count);
            for (int k = 0; k < 4; k++)
                d.v[k] = fmaf(own.v[k], scale[k], fmaf(value.v[k] - mean[k], slope[k], offset[k]));
        } else {
            for (int k = 0; k < 4; k++) d.v[k] = own.v[k] * scale[k];
        }
        if (accumulate) {
            const Four former = load_four(dx + at, count);
            for (int k = 0; k < 4; k++) d.v[k] += former.v[k];
        }
        store_four(dx + at, d, count);
    });
}
