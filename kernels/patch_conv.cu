// The 7³ mapping of 7³ patches: y[p, o, n] = b[o] + Σ_(c, m) W[o, c, m]·x[p, c, n + m − 3], by transforms of length ten (why
// that is exact: src/ops/patch_conv/mod.rs).
//
// Cost a patch for 8 → 4 channels, in fused multiply-adds:
//   dense Toeplitz product 343·343·32        3.76 M   on tensor cores (bf16, 16 × the rate) as much time as 0.24 M, but with
//                                                     bf16's error, and 3.8 MB of Toeplitz blocks that do not fit a cache
//   taps without the padding 37³·32          1.62 M
//   transforms 12 · ~10 k, bins 600·32·4     0.20 M   exact f32; this is what is built
// At 128 lanes a clock the last is some 1.6 k clocks; its traffic of shared memory, 50 k words a patch, takes as long beside it.
//
// A block takes POINTS patches. Every channel of a patch has a region of 600 bins in shared memory, in which its voxels are
// put, transformed along z, y, x in place by one warp (no barrier: a lane holds its two lines in registers while the others
// read theirs), multiplied bin by bin over the channels by all threads, and transformed back. Lines are numbered so that
// every pass reads at an odd stride or side by side, without bank conflicts: [kz][x·7+y], [ky][kz·7+x], [kx][ky·6+kz].
// The weights' spectra come from the second-level cache, 8 bytes a lane side by side, once for POINTS patches. Patches of a
// volume are sampled straight into the regions and never exist in memory.
// One launch does at most 8 inputs and 4 outputs; more are several launches, added up.
//
// The weight gradient is the same with sums Σ_points conj(DY)·X a bin, kept in registers: a block does a piece of the points
// for 4 inputs and 4 outputs; a second kernel adds the pieces and transforms the sums back, in f64.
//
// Patches are stored in f32 or bf16, told at run time: loads and stores are few beside the transforms, which are f32.
// Compulsory bytes a point: patches in and out, 4·343·(Ci + Co) in f32, or the volume's own voxels instead of the patches.
// Faster: weights of a bin held in registers over many patches (they are reread for each pair of patches now); lines of 49,
// 42 and 60 leave lanes idle (77 %, 66 %, 94 % busy), which patches of several points side by side would not.

#include "dft.cuh"
#include "last_block.cuh"
#include "patch.cuh"

constexpr int SPECTRUM = BINS * BINS * HALF;
constexpr int CONV_THREADS = 320, CONV_WARPS = CONV_THREADS / WARP;
// Patches of a block and most outputs of a launch (`src/ops/patch_conv/cuda.rs`, which also keeps inputs to 8).
constexpr int POINTS = 2, OUTPUTS = 4;
// Inputs and outputs of a block of the weight gradient.
constexpr int PAIR_SIDE = 4;

// e^(2πi·n/10)
__constant__ double ROOTS[BINS][2] = {
    {1.0, 0.0},
    {0.80901699437494742410, 0.58778525229247312917},
    {0.30901699437494742410, 0.95105651629515357212},
    {-0.30901699437494742410, 0.95105651629515357212},
    {-0.80901699437494742410, 0.58778525229247312917},
    {-1.0, 0.0},
    {-0.80901699437494742410, -0.58778525229247312917},
    {-0.30901699437494742410, -0.95105651629515357212},
    {0.30901699437494742410, -0.95105651629515357212},
    {0.80901699437494742410, -0.58778525229247312917},
};

// One axis of a transform in f64 by all threads: out[a, k, b] = Σ_n e^(2πi·(u·k + v)·(n + w)/10)… with the phase given by
// `phase(k, n)`; lengths [a, n → k, b].
template <class Phase>
__device__ void axis(const double2* x, double2* out, int before, int from, int to, int after, Phase phase) {
    for (int i = threadIdx.x; i < before * to * after; i += blockDim.x) {
        const int b = i % after, k = i / after % to, a = i / after / to;
        double2 sum = {0.0, 0.0};
        for (int n = 0; n < from; n++) {
            const double2 value = x[(a * from + n) * after + b];
            const int turn = (phase(k, n) % BINS + BINS) % BINS;
            const double re = ROOTS[turn][0], im = ROOTS[turn][1];
            sum.x += value.x * re - value.y * im;
            sum.y += value.x * im + value.y * re;
        }
        out[i] = sum;
    }
    __syncthreads();
}

// spectra [target, source, kx, ky, kz] of W [outputs, inputs, 343], each divided by the inverse's 1000. Forward: the kernel
// reversed, targets are outputs; adjoint: as it is, targets are inputs. A block a pair.
extern "C" __global__ void patch_conv_spectra(
    const float* weight, uint32_t inputs, uint32_t outputs, uint32_t adjoint, float2* spectra) {
    __shared__ double2 even[SPECTRUM], odd[SIDE * BINS * HALF];
    const uint32_t output = blockIdx.x / inputs, input = blockIdx.x % inputs;
    for (int i = threadIdx.x; i < PATCH; i += blockDim.x)
        even[i] = {(double)weight[(uint64_t)blockIdx.x * PATCH + i] / 1000.0, 0.0};
    __syncthreads();
    const auto phase = [adjoint](int k, int n) { return -k * (adjoint ? n : SIDE - 1 - n); };
    axis(even, odd, SIDE * SIDE, SIDE, HALF, 1, phase);
    axis(odd, even, SIDE, SIDE, BINS, HALF, phase);
    for (int i = threadIdx.x; i < SIDE * BINS * HALF; i += blockDim.x) odd[i] = even[i];
    __syncthreads();
    axis(odd, even, 1, SIDE, BINS, BINS * HALF, phase);
    const uint32_t pair = adjoint ? input * outputs + output : blockIdx.x;
    for (int i = threadIdx.x; i < SPECTRUM; i += blockDim.x)
        spectra[(uint64_t)pair * SPECTRUM + i] = {(float)even[i].x, (float)even[i].y};
}

// A channel's voxels (the first 343 floats of its region) to its 600 bins, by one warp.
__device__ void transform(float2* region) {
    const int lane = threadIdx.x % WARP;
    float real[2][SIDE];
    float2 line[2][SIDE];
    const float* voxels = reinterpret_cast<const float*>(region);
#pragma unroll
    for (int part = 0; part < 2; part++)
#pragma unroll
        for (int z = 0; z < SIDE; z++) {
            const int l = lane + part * WARP;
            real[part][z] = l < SIDE * SIDE ? voxels[l * SIDE + z] : 0.0f;
        }
    __syncwarp();
#pragma unroll
    for (int part = 0; part < 2; part++) {
        const int l = lane + part * WARP;
        float2 bins[HALF];
        ten_real(real[part], bins);
#pragma unroll
        for (int k = 0; k < HALF; k++)
            if (l < SIDE * SIDE) region[k * SIDE * SIDE + l] = bins[k];
    }
    // Along y, then along x: 42 and 60 lines.
#pragma unroll
    for (int pass = 0; pass < 2; pass++) {
        const int lines = pass == 0 ? HALF * SIDE : BINS * HALF;
        __syncwarp();
#pragma unroll
        for (int part = 0; part < 2; part++)
#pragma unroll
            for (int n = 0; n < SIDE; n++) {
                const int l = lane + part * WARP;
                line[part][n] = l < lines ? region[l * SIDE + n] : float2{0.0f, 0.0f};
            }
        __syncwarp();
#pragma unroll
        for (int part = 0; part < 2; part++) {
            const int l = lane + part * WARP;
            float2 bins[BINS];
            ten(line[part], bins);
#pragma unroll
            for (int k = 0; k < BINS; k++)
                if (l < lines) region[k * lines + l] = bins[k];
        }
    }
    __syncwarp();
}

// Back again, to the seven wanted elements of each axis; they are the first 343 floats of the region.
__device__ void transform_back(float2* region) {
    const int lane = threadIdx.x % WARP;
    float2 line[2][SIDE];
    float real[2][SIDE];
#pragma unroll
    for (int pass = 0; pass < 2; pass++) {
        const int lines = pass == 0 ? BINS * HALF : HALF * SIDE;
#pragma unroll
        for (int part = 0; part < 2; part++) {
            const int l = lane + part * WARP;
            float2 bins[BINS];
#pragma unroll
            for (int k = 0; k < BINS; k++) bins[k] = l < lines ? region[k * lines + l] : float2{0.0f, 0.0f};
            ten_inverse(bins, line[part]);
        }
        __syncwarp();
#pragma unroll
        for (int part = 0; part < 2; part++)
#pragma unroll
            for (int n = 0; n < SIDE; n++) {
                const int l = lane + part * WARP;
                if (l < lines) region[l * SIDE + n] = line[part][n];
            }
        __syncwarp();
    }
#pragma unroll
    for (int part = 0; part < 2; part++) {
        const int l = lane + part * WARP;
        float2 bins[HALF];
#pragma unroll
        for (int k = 0; k < HALF; k++) bins[k] = l < SIDE * SIDE ? region[k * SIDE * SIDE + l] : float2{0.0f, 0.0f};
        ten_to_real(bins, real[part]);
    }
    __syncwarp();
    float* voxels = reinterpret_cast<float*>(region);
#pragma unroll
    for (int part = 0; part < 2; part++)
#pragma unroll
        for (int z = 0; z < SIDE; z++) {
            const int l = lane + part * WARP;
            if (l < SIDE * SIDE) voxels[l * SIDE + z] = real[part][z];
        }
    __syncwarp();
}

// Where patches come from: given ones [points, channels, 343], or volumes (f32) to sample at coordinates [points, 3].
struct Source {
    const void* data;
    const float* coordinates; // null: the patches are given
    Volumes volumes;
    uint32_t narrow; // given patches are bf16
    uint32_t unused;
};

template <int N>
__device__ void sample_channels(const Source& s, uint64_t point, int index, uint32_t first, uint32_t count, float2* regions) {
    const Volumes& v = s.volumes;
    const Position p = position(s.coordinates + 3 * point, v);
    const float* volume = (const float*)s.data + point / v.points_per_volume * v.depth * v.height * v.width * v.channels;
    for (uint32_t c = 0; c < count; c += N) {
        const uint32_t channel = first + c;
        const Values<N> value = channel < v.channels
                                    ? local_value<N>(volume, v, p, index, channel)
                                    : mid_range_value<N>(volume, v, p, index, channel - v.channels);
        for (int n = 0; n < N; n++) reinterpret_cast<float*>(regions + (c + n) * SPECTRUM)[index] = value.at[n];
    }
}

// Channels first … first + count of the patches of `point` and the POINTS − 1 after it into regions, those of one patch
// `stride` apart from those of the next; zeros from `end` on.
__device__ void load(
    const Source& s, uint64_t point, uint64_t end, uint32_t channels, uint32_t first, uint32_t count, float2* regions, uint32_t stride) {
    const uint32_t each = s.coordinates == nullptr ? count * PATCH : PATCH;
    for (uint32_t i = threadIdx.x; i < POINTS * each; i += blockDim.x) {
        const uint32_t patch = i / each, index = i % PATCH;
        float2* to = regions + patch * stride * SPECTRUM;
        const uint64_t at = point + patch;
        if (s.coordinates == nullptr) {
            const uint32_t channel = i % each / PATCH;
            const uint64_t element = (at * channels + first + channel) * PATCH + index;
            const float value = at < end ? stored(s.data, element, s.narrow) : 0.0f;
            reinterpret_cast<float*>(to + channel * SPECTRUM)[index] = value;
        } else if (at >= end) {
            for (uint32_t c = 0; c < count; c++) reinterpret_cast<float*>(to + c * SPECTRUM)[index] = 0.0f;
        } else if (s.volumes.channels % 4 == 0) {
            sample_channels<4>(s, at, index, first, count, to);
        } else {
            sample_channels<1>(s, at, index, first, count, to);
        }
    }
}

// sum + a·b and sum + a*·b
__device__ inline float2 add_product(float2 sum, float2 a, float2 b) {
    return {fmaf(-a.y, b.y, fmaf(a.x, b.x, sum.x)), fmaf(a.y, b.x, fmaf(a.x, b.y, sum.y))};
}

// Channels of one launch: `channels` of all, `count` of them from `first` on.
struct Part {
    uint32_t channels, first, count;
};

// y [points, targets, 343] (bf16 if `narrow`) (+)= source ⋆ spectra [targets, sources, 600] + bias [targets], for parts of both.
extern "C" __global__ void __launch_bounds__(CONV_THREADS, 2) patch_conv_forward(
    Source source, Part from, Part to, const float2* spectra, const float* bias, void* y, uint32_t narrow, uint64_t points,
    uint32_t accumulate) {
    extern __shared__ __align__(16) float2 regions[];
    const uint32_t stride = max(from.count, to.count), warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const uint64_t first = (uint64_t)blockIdx.x * POINTS;
    load(source, first, points, from.channels, from.first, from.count, regions, stride);
    __syncthreads();
    for (uint32_t i = warp; i < POINTS * from.count; i += CONV_WARPS)
        transform(regions + (i / from.count * stride + i % from.count) * SPECTRUM);
    __syncthreads();
    // A bin of all outputs lies where the same bin of the first inputs did: only this thread needs those.
    for (int bin = threadIdx.x; bin < SPECTRUM; bin += CONV_THREADS) {
        float2 sums[POINTS][OUTPUTS] = {};
        for (uint32_t c = 0; c < from.count; c++) {
            float2 x[POINTS];
#pragma unroll
            for (int p = 0; p < POINTS; p++) x[p] = regions[(p * stride + c) * SPECTRUM + bin];
#pragma unroll
            for (uint32_t o = 0; o < OUTPUTS; o++) {
                if (o >= to.count) break;
                const uint64_t pair = (uint64_t)(to.first + o) * from.channels + from.first + c;
                const float2 w = __ldg(spectra + pair * SPECTRUM + bin);
#pragma unroll
                for (int p = 0; p < POINTS; p++) sums[p][o] = add_product(sums[p][o], w, x[p]);
            }
        }
#pragma unroll
        for (int p = 0; p < POINTS; p++)
#pragma unroll
            for (uint32_t o = 0; o < OUTPUTS; o++)
                if (o < to.count) regions[(p * stride + o) * SPECTRUM + bin] = sums[p][o];
    }
    __syncthreads();
    for (uint32_t i = warp; i < POINTS * to.count; i += CONV_WARPS) {
        const uint32_t patch = i / to.count, o = i % to.count;
        float2* region = regions + (patch * stride + o) * SPECTRUM;
        if (first + patch >= points) continue;
        transform_back(region);
        const float* voxels = reinterpret_cast<const float*>(region);
        const float b = bias == nullptr ? 0.0f : bias[to.first + o];
        const uint64_t target = ((first + patch) * to.channels + to.first + o) * PATCH;
        for (int n = lane; n < PATCH; n += WARP) {
            if (narrow) put((bf16*)y + target + n, voxels[n] + b, accumulate);
            else put((float*)y + target + n, voxels[n] + b, accumulate);
        }
    }
}

// parts [pieces, outputs, inputs, 600] = Σ over the points of a piece of conj(DY)·X. Grid (pieces, blocks of inputs, of
// outputs); `piece` points each, a multiple of POINTS.
extern "C" __global__ void __launch_bounds__(CONV_THREADS, 1) patch_conv_weight_sums(
    Source source, const void* dy, uint32_t narrow, uint32_t inputs, uint32_t outputs, uint64_t points, uint64_t piece,
    float2* parts) {
    extern __shared__ __align__(16) float2 regions[];
    constexpr int SHARE = (SPECTRUM + CONV_THREADS - 1) / CONV_THREADS; // bins of a thread
    const uint32_t first_input = blockIdx.y * PAIR_SIDE, first_output = blockIdx.z * PAIR_SIDE;
    const uint32_t ins = min(inputs - first_input, (uint32_t)PAIR_SIDE), outs = min(outputs - first_output, (uint32_t)PAIR_SIDE);
    const uint32_t channels = ins + outs, warp = threadIdx.x / WARP;
    const Source gradient = {dy, nullptr, {}, narrow, 0};
    float2 sums[SHARE][PAIR_SIDE][PAIR_SIDE] = {};
    const uint64_t begin = blockIdx.x * piece, end = min(begin + piece, points);
    for (uint64_t point = begin; point < end; point += POINTS) {
        load(source, point, end, inputs, first_input, ins, regions, channels);
        load(gradient, point, end, outputs, first_output, outs, regions + ins * SPECTRUM, channels);
        __syncthreads();
        for (uint32_t i = warp; i < POINTS * channels; i += CONV_WARPS) transform(regions + i * SPECTRUM);
        __syncthreads();
#pragma unroll
        for (int share = 0; share < SHARE; share++) {
            const int bin = threadIdx.x + share * CONV_THREADS;
            if (bin >= SPECTRUM) continue;
#pragma unroll 1
            for (int p = 0; p < POINTS; p++) {
                const float2* at = regions + p * channels * SPECTRUM + bin;
#pragma unroll
                for (uint32_t o = 0; o < PAIR_SIDE; o++) {
                    if (o >= outs) break;
                    const float2 g = conjugate(at[(ins + o) * SPECTRUM]);
#pragma unroll
                    for (uint32_t c = 0; c < PAIR_SIDE; c++)
                        if (c < ins) sums[share][o][c] = add_product(sums[share][o][c], g, at[c * SPECTRUM]);
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int share = 0; share < SHARE; share++) {
        const int bin = threadIdx.x + share * CONV_THREADS;
        if (bin >= SPECTRUM) continue;
#pragma unroll
        for (uint32_t o = 0; o < PAIR_SIDE; o++)
#pragma unroll
            for (uint32_t c = 0; c < PAIR_SIDE; c++) {
                if (o >= outs || c >= ins) continue;
                const uint64_t pair = ((uint64_t)blockIdx.x * outputs + first_output + o) * inputs + first_input + c;
                parts[pair * SPECTRUM + bin] = sums[share][o][c];
            }
    }
}

// dW [outputs, inputs, 343] (+)= the inverse transform of Σ_piece parts [pieces, pairs, 600], at lags −3 … 3. A block a pair.
extern "C" __global__ void patch_conv_weight_gradient(
    const float2* parts, uint32_t pieces, uint32_t pairs, float* dw, uint32_t accumulate) {
    __shared__ double2 even[SPECTRUM], odd[SIDE * BINS * HALF];
    for (int bin = threadIdx.x; bin < SPECTRUM; bin += blockDim.x) {
        double2 sum = {0.0, 0.0};
        for (uint32_t piece = 0; piece < pieces; piece++) {
            const float2 part = parts[((uint64_t)piece * pairs + blockIdx.x) * SPECTRUM + bin];
            sum.x += part.x, sum.y += part.y;
        }
        even[bin] = sum;
    }
    __syncthreads();
    const auto phase = [](int m, int k) { return k * (m - 3); };
    axis(even, odd, 1, BINS, SIDE, BINS * HALF, phase);
    axis(odd, even, SIDE, BINS, SIDE, HALF, phase);
    // Along the last axis bins 1 … 4 stand for their conjugates, too.
    for (int i = threadIdx.x; i < PATCH; i += blockDim.x) {
        double sum = 0.0;
        for (int k = 0; k < HALF; k++) {
            const double2 value = even[i / SIDE * HALF + k];
            const int turn = (phase(i % SIDE, k) % BINS + BINS) % BINS;
            const double term = value.x * ROOTS[turn][0] - value.y * ROOTS[turn][1];
            sum += k == 0 || k == HALF - 1 ? term : 2.0 * term;
        }
        put(&dw[(uint64_t)blockIdx.x * PATCH + i], (float)(sum / 1000.0), accumulate);
    }
}

// db [outputs] (+)= Σ over the points and all voxels of dy [points, outputs, 343]; parts [outputs, pieces] is scratch. Grid
// (pieces, outputs): the last block of an output adds the pieces.
extern "C" __global__ void __launch_bounds__(THREADS) patch_conv_bias_gradient(
    const void* dy, uint32_t narrow, uint32_t outputs, uint64_t points, uint64_t piece, float* parts, float* db, uint32_t accumulate,
    uint32_t* tickets) {
    const uint64_t begin = blockIdx.x * piece, end = min(begin + piece, points);
    double sum = 0.0;
    for (uint64_t point = begin; point < end; point++)
        for (int n = threadIdx.x; n < PATCH; n += blockDim.x)
            sum += stored(dy, (point * outputs + blockIdx.y) * PATCH + n, narrow);
    sum = block_sum(sum);
    float* const own = parts + blockIdx.y * gridDim.x;
    if (threadIdx.x == 0) own[blockIdx.x] = (float)sum;
    if (!last_to_arrive(tickets + blockIdx.y, gridDim.x)) return;
    sum = 0.0;
    for (uint32_t i = threadIdx.x; i < gridDim.x; i += THREADS) sum += fresh(own + i);
    sum = block_sum(sum);
    if (threadIdx.x == 0) put(&db[blockIdx.y], (float)sum, accumulate);
}
