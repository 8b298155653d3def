// Sigmoid and softmax.
//
// Sigmoid: element by element, 16 bytes a thread and access; 8 bytes an element forward, 12 backward.
//
// Softmax over the last axis: `span` lanes of a warp share a row (the power of two from the number of classes on, at most
// 32), so a warp reads a stretch of memory; they join maxima and sums by shuffles. Up to 32 classes are read once; of more the
// others are read three times, twice of them from the cache. 8 bytes an element forward, 12 backward.
//
// A faster one would be the epilogue of the layer that makes the logits, or the prologue of the loss.

#include "rows.cuh"

// x, y [n]
extern "C" __global__ void __launch_bounds__(THREADS) sigmoid(const float* x, float* y, uint64_t n) {
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        Four v = load_four(x + at, count);
        for (int k = 0; k < 4; k++) v.v[k] = logistic(v.v[k]);
        store_four(y + at, v, count);
    });
}

// gradient [n] ← gradient·y·(1 − y)
extern "C" __global__ void __launch_bounds__(THREADS) sigmoid_backward(const float* y, float* gradient, uint64_t n) {
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        const Four v = load_four(y + at, count);
        Four g = load_four(gradient + at, count);
        for (int k = 0; k < 4; k++) g.v[k] *= v.v[k] * (1.0f - v.v[k]);
        store_four(gradient + at, g, count);
    });
}

// x, y [rows, classes]
extern "C" __global__ void __launch_bounds__(THREADS)
    softmax(const float* x, float* y, uint64_t rows, uint32_t classes, uint32_t span) {
    for_rows(row, rows, span) {
        const float* from = x + row.index * classes;
        float* to = y + row.index * classes;
        const uint32_t end = row.classes(classes);
        // A lane's first class stays in a register; mostly there is no other.
        const bool there = row.lane < end;
        const float own = there ? from[row.lane] : -INFINITY;
        float largest = own;
        for (uint32_t c = row.lane + span; c < end; c += span) largest = fmaxf(largest, from[c]);
        largest = span_max(largest, span);
        const float exponential = there ? expf(own - largest) : 0.0f;
        float sum = exponential;
        for (uint32_t c = row.lane + span; c < end; c += span) sum += expf(from[c] - largest);
        const float scale = 1.0f / span_sum(sum, span);
        if (there) to[row.lane] = exponential * scale;
        for (uint32_t c = row.lane + span; c < end; c += span) to[c] = expf(from[c] - largest) * scale;
    }
}

// gradient [rows, classes] ← y·(gradient − Σ gradient·y)
extern "C" __global__ void __launch_bounds__(THREADS)
    softmax_backward(const float* y, float* gradient, uint64_t rows, uint32_t classes, uint32_t span) {
    for_rows(row, rows, span) {
        const float* of = y + row.index * classes;
        float* d = gradient + row.index * classes;
        const uint32_t end = row.classes(classes);
        const bool there = row.lane < end;
        const float own = there ? of[row.lane] : 0.0f, slope = there ? d[row.lane] : 0.0f;
        float mean = slope * own;
        for (uint32_t c = row.lane + span; c < end; c += span) mean = fmaf(d[c], of[c], mean);
        mean = span_sum(mean, span);
        if (there) d[row.lane] = own * (slope - mean);
        for (uint32_t c = row.lane + span; c < end; c += span) d[c] = of[c] * (d[c] - mean);
    }
}
