// Mean and biased variance of groups of elements, in one launch.
//
// Tiles of tiles.cuh. A thread takes eight rows at a time into registers; the mean of its first eight is a shift about which
// it sums differences and their squares in f32, eight terms at a time. A block joins its threads in f64: first the mean, then
// the squares about it (Chan, Golub, LeVeque 1983), so a large mean costs no accuracy. So do the last block of each GROUP of
// pieces, and the last of an item with the groups (last_block.cuh): neither reads more than a block reads quickly.
// Moves 4 bytes an element, and 24 bytes a channel and piece; 4 FLOPs an element.
//
// A faster one would compute the statistics where the elements are made, in the epilogue of a convolution or product.

#include "last_block.cuh"
#include "tiles.cuh"

constexpr int BATCH = 8;
constexpr uint32_t GROUP = 32; // `GROUP` in src/ops/moments/cuda.rs

// What is known of some rows of four virtual channels, in the threads of lane 0: mean and squares about it.
struct Part {
    double mean[4], squares[4];

    // To `out` [3, width]: mean, what its rounding left over, squares.
    __device__ void leave(float* out, const Tiling& t) const {
        out += t.channel();
        for (int k = 0; k < 4; k++) {
            const float high = (float)mean[k];
            out[k] = high;
            out[t.width + k] = (float)(mean[k] - high);
            out[2 * t.width + k] = (float)(squares[k] < 0.0 ? 0.0 : squares[k]);
        }
    }
};

// Joins the lanes' rows: `sum` is the sum of the thread's elements of each channel, squares(mean, k) that of their squared
// distances from a mean, and rows_in(c) says how many elements channel `c` has in all.
template <class Rows, class Squares>
__device__ Part join_lanes(const Tiling& t, double (&sum)[4], Rows rows_in, Squares squares, double (*parts)[THREADS]) {
    sum_lanes(t, sum, parts);
    if (t.lane() == 0)
        for (int k = 0; k < 4; k++) {
            const uint32_t all = rows_in(t.channel() + k);
            parts[k][threadIdx.x] = all > 0 ? sum[k] / all : 0.0;
        }
    __syncthreads();
    Part part;
    for (int k = 0; k < 4; k++) part.mean[k] = parts[k][t.column()];
    __syncthreads();
    for (int k = 0; k < 4; k++) part.squares[k] = squares(part.mean[k], k);
    sum_lanes(t, part.squares, parts);
    return part;
}

// x [items, length] → statistics [2, items·channels]. Scratch: partials [items, pieces, 3, width], of groups
// [items, groups, 3, width].
extern "C" __global__ void __launch_bounds__(THREADS)
    KERNEL(moments)(const real* x, float* partials, float* of_groups, float* statistics, uint32_t* tickets, Tiling t) {
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
    const auto own_rows = [&](uint32_t c) { return t.rows_in(blockIdx.x, c); };
    // Σ (x − mean)² from sums about another point.
    const auto own_squares = [&](double mean, int k) {
        const double off = shift[k] - mean;
        return count[k] > 0 ? square[k] + off * (2.0 * sum[k] + count[k] * off) : 0.0;
    };
    const Part own = join_lanes(t, values, own_rows, own_squares, parts);
    const bool writes = t.lane() == 0 && t.works();
    const uint64_t size = 3 * t.width;
    float* const pieces = partials + (uint64_t)blockIdx.z * t.pieces * size;
    if (writes) own.leave(pieces + blockIdx.x * size, t);

    const uint32_t group = blockIdx.x / GROUP, groups = (t.pieces + GROUP - 1) / GROUP;
    const uint32_t first = group * GROUP, end = min(first + GROUP, t.pieces);
    tickets += blockIdx.z * (gridDim.y * groups + 1);
    if (!last_to_arrive(tickets + 1 + blockIdx.y * groups + group, end - first)) return;
    for (int k = 0; k < 4; k++) {
        values[k] = 0.0;
        if (t.works())
            for (uint32_t piece = first + t.lane(); piece < end; piece += t.lanes) {
                const float* at = pieces + piece * size + t.channel() + k;
                values[k] += t.rows_in(piece, t.channel() + k) * ((double)fresh(at) + fresh(at + t.width));
            }
    }
    const auto group_rows = [&](uint32_t c) { return t.rows_in(group, c, GROUP); };
    const auto group_squares = [&](double mean, int k) {
        double squares = 0.0;
        if (t.works())
            for (uint32_t piece = first + t.lane(); piece < end; piece += t.lanes) {
                const float* at = pieces + piece * size + t.channel() + k;
                const double off = (double)fresh(at) + fresh(at + t.width) - mean;
                squares += fresh(at + 2 * t.width) + t.rows_in(piece, t.channel() + k) * off * off;
            }
        return squares;
    };
    const Part joint = join_lanes(t, values, group_rows, group_squares, parts);
    of_groups += (uint64_t)blockIdx.z * groups * size;
    if (writes) joint.leave(of_groups + group * size, t);

    if (!last_to_arrive(tickets, gridDim.y * groups)) return;
    // The groups of an item, and the virtual channels of a real one: `span` channels side by side.
    uint32_t span = 1;
    while (span < WARP && span < t.channels) span *= 2;
    const uint32_t lane = threadIdx.x / span, lanes = THREADS / span;
    const double members = (double)(t.length / t.channels);
    for (uint32_t begin = 0; begin < t.channels; begin += span) {
        const uint32_t channel = begin + threadIdx.x % span;
        double mean = 0.0;
        for (int round = 0; round < 2; round++) {
            double total = 0.0;
            if (channel < t.channels)
                for (uint32_t g = lane; g < groups; g += lanes)
                    for (uint32_t c = channel; c < t.width; c += t.channels) {
                        const float* at = of_groups + g * size + c;
                        const double rows = t.rows_in(g, c, GROUP), off = (double)fresh(at) + fresh(at + t.width) - mean;
                        total += round == 0 ? rows * off : fresh(at + 2 * t.width) + rows * off * off;
                    }
            parts[0][threadIdx.x] = total;
            __syncthreads();
            for (uint32_t stride = lanes / 2; stride > 0; stride /= 2) {
                if (lane < stride) parts[0][threadIdx.x] += parts[0][threadIdx.x + stride * span];
                __syncthreads();
            }
            mean = parts[0][threadIdx.x % span] / members;
            if (lane == 0 && channel < t.channels)
                statistics[((uint64_t)round * gridDim.z + blockIdx.z) * t.channels + channel] = (float)mean;
            __syncthreads();
        }
    }
}

#ifndef BF16 // f32 in every precision
// totals [2, C] in f64, means and squares about them of `before` elements a channel, take in another `count` elements of
// moments own [2, C]; out [2, C] ← their mean and biased variance. A thread a channel.
extern "C" __global__ void __launch_bounds__(THREADS)
    moments_merge(double* totals, const float* own, uint32_t channels, double before, double count, float* out) {
    for_elements(c, channels) {
        const double mean = before > 0.0 ? totals[c] : 0.0, squares = before > 0.0 ? totals[channels + c] : 0.0;
        const double distance = own[c] - mean, all = before + count;
        totals[c] = mean + distance * count / all;
        totals[channels + c] = squares + (count * own[channels + c] + distance * distance * before * count / all);
        out[c] = (float)totals[c];
        out[channels + c] = (float)(totals[channels + c] / all);
    }
}
#endif
