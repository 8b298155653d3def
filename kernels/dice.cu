// Soft Dice loss. Formulas: src/ops/loss/dice.rs.
//
// `dice_pieces`: tiles of tiles.cuh, an item a batch item; sums in f64. `dice_join`: one block; a warp a group.
// `dice_backward`: element by element. Moves 4·(|p| + |y|) bytes a pass forward, twice that and 4·|p| backward.
//
// A faster one would sum in the kernel that makes the probabilities.

#include "loss.cuh"
#include "tiles.cuh"

// 1 where the label is the channel's index; with one channel the label itself.
__device__ inline float target(float label, uint32_t c, uint32_t channels) {
    return channels == 1 ? label : label == (float)c ? 1.0f : 0.0f;
}

// p [items, rows, C], labels [items, rows] → partials [items, pieces, 2, width]: Σ p·y and Σ p + Σ y.
// A label that is no class makes the sums NaN.
extern "C" __global__ void __launch_bounds__(THREADS)
    dice_pieces(const float* p, const float* labels, double* partials, Tiling t) {
    __shared__ double parts[8][THREADS];
    double sums[8] = {};
    for_fours(t, [&](uint64_t at, uint32_t count) {
        const Four own = load_four(p + at, count);
        // The channels of a four are neighbours: its first element's row, and one more after each last channel.
        uint64_t row = at / t.channels;
        uint32_t c = (uint32_t)(at - row * t.channels);
        for (int k = 0; k < 4; k++) {
            if (k < count) {
                const float label = labels[row];
                const bool known = t.channels == 1 || (label >= 0.0f && label < (float)t.channels && label == truncf(label));
                const float y = known ? target(label, c, t.channels) : NAN;
                sums[k] += own.v[k] * y;
                sums[4 + k] += (double)own.v[k] + y;
            }
            if (++c == t.channels) c = 0, row++;
        }
    });
    sum_lanes(t, sums, parts);
    if (t.lane() == 0 && t.works()) {
        double* out = partials + ((uint64_t)blockIdx.z * t.pieces + blockIdx.x) * 2 * t.width + t.channel();
        for (int k = 0; k < 4; k++) out[k] = sums[k], out[t.width + k] = sums[4 + k];
    }
}

// Joins the pieces. loss[0] = 1 − mean of the groups' Dice, unless null; slopes [items, C, 2], unless null: dp = slope₁·y +
// slope₀, times dy[0]. Channels before `first` do not count.
extern "C" __global__ void __launch_bounds__(THREADS)
    dice_join(const double* partials, uint32_t items, uint32_t first, const float* dy, float* loss, float* slopes, Tiling t) {
    constexpr double SMOOTH = 1e-5;
    const uint64_t groups = (uint64_t)items * t.channels, counted = (uint64_t)items * (t.channels - first);
    double dice = 0.0;
    for (uint64_t group = threadIdx.x / WARP; group < groups; group += THREADS / WARP) {
        const uint64_t item = group / t.channels, c = group % t.channels;
        double both = 0.0, either = 0.0;
        for (uint32_t piece = threadIdx.x % WARP; piece < t.pieces; piece += WARP)
            for (uint64_t virtual_c = c; virtual_c < t.width; virtual_c += t.channels) {
                const double* at = partials + (item * t.pieces + piece) * 2 * t.width + virtual_c;
                both += at[0];
                either += at[t.width];
            }
        both = warp_sum(both), either = warp_sum(either);
        if (threadIdx.x % WARP != 0) continue;
        if (c < first) {
            if (slopes) slopes[2 * group] = slopes[2 * group + 1] = 0.0f;
            continue;
        }
        const double above = 2.0 * both + SMOOTH, below = either + SMOOTH;
        dice += above / below;
        if (slopes) {
            const double scale = -(double)*dy / counted;
            slopes[2 * group] = (float)(scale * 2.0 / below);
            slopes[2 * group + 1] = (float)(-scale * above / (below * below));
        }
    }
    dice = block_sum(dice);
    if (loss && threadIdx.x == 0) loss[0] = (float)(1.0 - dice / counted);
}

// dp [items, rows, C] (+)= slope₁·y + slope₀
extern "C" __global__ void __launch_bounds__(THREADS)
    dice_backward(const float* labels, const float* slopes, float* dp, uint32_t accumulate, Tiling t) {
    for_fours(t, [&](uint64_t at, uint32_t count) {
        Four d = accumulate ? load_four(dp + at, count) : Four{};
        uint64_t row = at / t.channels;
        uint32_t c = (uint32_t)(at - row * t.channels);
        for (int k = 0; k < 4; k++) {
            if (k < count) {
                const float* slope = slopes + 2 * ((uint64_t)blockIdx.z * t.channels + c);
                d.v[k] += slope[0] * target(labels[row], c, t.channels) + slope[1];
            }
            if (++c == t.channels) c = 0, row++;
        }
        store_four(dp + at, d, count);
    });
}
