// Losses of rows: binary cross entropy and focal loss, cross entropy of several classes. Formulas: src/ops/loss.
//
// One pass over predictions and labels each way (8 bytes an element forward, 12 backward, of one channel); terms in f32,
// sums in f64: threads, then blocks, then the last block adds the blocks', all in a fixed order. Several classes: lanes share rows as in
// rows.cuh. A faster one would be the epilogue of the layer that makes the logits.
//
// A label that is no class makes loss and gradients NaN: a device cannot raise an error without being waited for.

#include "loss.cuh"

// out[0] = mean of the losses of x, label [n]
extern "C" __global__ void __launch_bounds__(THREADS)
    binary_loss(const float* x, const float* label, uint64_t n, Binary options, Mean mean) {
    double sum = 0.0;
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        const Four v = load_four(x + at, count), y = load_four(label + at, count);
#pragma unroll
        for (int k = 0; k < 4; k++) sum += k < count ? binary(options, v.v[k], y.v[k]).value : 0.0f;
    });
    mean.write(sum);
}

// dx (+)= dy/count·slope
extern "C" __global__ void __launch_bounds__(THREADS)
    binary_loss_backward(const float* x, const float* label, const float* dy, float count, uint64_t n, Binary options,
                         float* dx, uint32_t accumulate) {
    const float scale = *dy / count;
    for_each_four(n, [&](uint64_t at, uint32_t there) {
        const Four v = load_four(x + at, there), y = load_four(label + at, there);
        Four d = accumulate ? load_four(dx + at, there) : Four{};
#pragma unroll
        for (int k = 0; k < 4; k++) d.v[k] += scale * binary(options, v.v[k], y.v[k]).slope;
        store_four(dx + at, d, there);
    });
}

// The twin of `Classes` in src/ops/loss/cuda.rs.
struct Classes {
    uint64_t rows;
    uint32_t classes;
    uint32_t span;
    float gamma;
    uint32_t probabilities;
};

// What the lanes of a row know of it.
struct Softmax {
    uint32_t label;
    bool valid;
    float own;                       // the lane's first class, if it has one
    float largest, exponential, sum; // logits: max, e^(own − max), Σ e^(x − max)
    float ln_p, ln_slope, p, miss;
};

// x: the row's predictions. All lanes of the warp must take part.
__device__ inline Softmax look_at(const Classes& o, const Row& row, const float* x, const float* labels) {
    Softmax s{};
    const uint32_t end = row.classes(o.classes);
    const bool there = row.lane < end;
    const float label = row.there ? labels[row.index] : 0.0f;
    s.valid = label >= 0.0f && label < (float)o.classes && label == truncf(label);
    s.label = s.valid ? (uint32_t)label : 0;
    s.own = there ? x[row.lane] : -INFINITY;
    // The labelled class is mostly in a lane's register.
    float labelled = __shfl_sync(ALL_LANES, s.own, s.label % o.span, o.span);
    if (s.label >= o.span && row.there) labelled = x[s.label];
    if (!row.there) labelled = 0.0f;
    if (o.probabilities) {
        const Dual ln_p = clamped_ln(labelled);
        s.ln_p = ln_p.value, s.ln_slope = ln_p.slope, s.p = labelled, s.miss = 1.0f - labelled;
        return s;
    }
    float largest = s.own;
    for (uint32_t c = row.lane + o.span; c < end; c += o.span) largest = fmaxf(largest, x[c]);
    largest = span_max(largest, o.span);
    s.largest = row.there ? largest : 0.0f;
    s.exponential = there ? expf(s.own - s.largest) : 0.0f;
    float others = row.lane == s.label ? 0.0f : s.exponential;
    for (uint32_t c = row.lane + o.span; c < end; c += o.span)
        if (c != s.label) others += expf(x[c] - s.largest);
    others = span_sum(others, o.span);
    const float exponential = expf(labelled - s.largest);
    s.sum = exponential + others;
    s.ln_p = labelled - s.largest - logf(s.sum), s.p = exponential / s.sum, s.miss = others / s.sum;
    return s;
}

// out[0] = mean of the losses of x [rows, classes], labels [rows]
extern "C" __global__ void __launch_bounds__(THREADS)
    cross_entropy(const float* x, const float* labels, Classes options, Mean mean) {
    double sum = 0.0;
    for_rows(row, options.rows, options.span) {
        const Softmax s = look_at(options, row, x + row.index * options.classes, labels);
        const float loss = s.valid ? -focal(s.miss, options.gamma).value * s.ln_p : NAN;
        if (row.there && row.lane == 0) sum += loss;
    }
    mean.write(sum);
}

// dx [rows, classes] (+)= dy/rows·slope
extern "C" __global__ void __launch_bounds__(THREADS)
    cross_entropy_backward(const float* x, const float* labels, const float* dy, Classes options, float* dx,
                           uint32_t accumulate) {
    const float scale = *dy / (float)options.rows;
    for_rows(row, options.rows, options.span) {
        const float* of = x + row.index * options.classes;
        const Softmax s = look_at(options, row, of, labels);
        const Dual factor = focal(s.miss, options.gamma);
        float common = options.probabilities ? factor.slope * s.ln_p - factor.value * s.ln_slope
                                             : factor.slope * s.p * s.ln_p - factor.value;
        common = s.valid ? scale * common : NAN;
        for (uint32_t c = row.lane; c < row.classes(options.classes); c += options.span) {
            float slope = c == s.label ? 1.0f : 0.0f;
            if (!options.probabilities) {
                const float exponential = c == row.lane ? s.exponential : expf(of[c] - s.largest);
                slope = c == s.label ? s.miss : -exponential / s.sum;
            }
            put(dx + row.index * options.classes + c, common * slope, accumulate);
        }
    }
}

// The reference rule; see src/ops/loss/cross_entropy.rs. Predictions [batch, rows, classes]: a thread has one n and c.
struct Reference {
    uint64_t batch, rows;
    uint32_t classes;
    float gamma;
};

__device__ inline Dual reference_factor(const Reference& o, float p, bool labelled) {
    const Dual factor = focal(labelled ? 1.0f - p : p, o.gamma);
    return {factor.value, labelled ? -factor.slope : factor.slope};
}

// Σ_b factor (value) and S[n, c] (slope) of element i = n·classes + c.
__device__ inline Dual reference_sums(const Reference& o, const float* p, const float* labels, uint64_t i) {
    const uint64_t n = i / o.classes;
    const float c = (float)(i % o.classes);
    Dual sums = {0.0f, 0.0f};
    for (uint64_t b = 0; b < o.batch; b++) {
        const float own = p[b * o.rows * o.classes + i];
        const bool labelled = labels[b * o.rows + n] == c;
        sums.value += reference_factor(o, own, labelled).value;
        if (labelled) sums.slope -= clamped_ln(own).value;
    }
    return sums;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    reference_entropy(const float* p, const float* labels, Reference options, Mean mean) {
    double sum = 0.0;
    for_elements(i, options.rows * options.classes) {
        const Dual sums = reference_sums(options, p, labels, i);
        sum += (double)sums.value * sums.slope;
    }
    mean.write(sum);
}

// dp (+)= dy/(batch·rows·classes)·slope
extern "C" __global__ void __launch_bounds__(THREADS)
    reference_entropy_backward(const float* p, const float* labels, const float* dy, Reference options, float* dp,
                               uint32_t accumulate) {
    const uint64_t item = options.rows * options.classes;
    const float scale = *dy / (float)(options.batch * item);
    for_elements(i, item) {
        const Dual sums = reference_sums(options, p, labels, i);
        for (uint64_t b = 0; b < options.batch; b++) {
            const float own = p[b * item + i];
            const bool labelled = labels[b * options.rows + i / options.classes] == (float)(i % options.classes);
            const float share = labelled ? sums.value * clamped_ln(own).slope : 0.0f;
            put(dp + b * item + i, scale * (reference_factor(options, own, labelled).slope * sums.slope - share), accumulate);
        }
    }
}
