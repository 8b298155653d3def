// Average and max pooling of volumes [batch, D, H, W, C] over windows of a fixed size or over bins that cover the axes.
//
// One thread an element of what is written; neighbouring threads have neighbouring channels and then voxels, so requests
// are whole lines when C is a multiple of 8 and near to it otherwise. Gradients are gathered by each input from the few
// outputs whose windows hold it: nothing is scattered and the order of each sum is fixed. The max's gradient first notes the
// place of each maximum (4 bytes an output), so that inputs compare places instead of looking for maxima again.
// Compulsory bytes: 4·(|x| + |y|) forward, the same backward for means, 4·(2|x| + |y|) for maxima. Work: one FLOP for each
// voxel of each window. A faster 2³ pool would let a thread move four channels at once.

#include "axes.cuh"

// y[o] = mean x[window(o)]
extern "C" __global__ void KERNEL(avg_pool_forward)(const real* x, real* y, Axes axes, uint32_t channels, uint64_t outputs) {
    for_elements(i, outputs) {
        const Place p = place<true>(axes, channels, i);
        const Span d = window(axes.d, p.d), h = window(axes.h, p.h), w = window(axes.w, p.w);
        float sum = 0.0f;
        for (uint32_t a = d.first; a < d.end; a++)
            for (uint32_t b = h.first; b < h.end; b++)
                for (uint32_t c = w.first; c < w.end; c++) sum += (float)x[element<false>(axes, channels, p, a, b, c)];
        y[i] = sum / (float)((d.end - d.first) * (h.end - h.first) * (w.end - w.first));
    }
}

// dx[i] (+)= Σ dy[o]/|window(o)| over the windows that hold i
extern "C" __global__ void KERNEL(avg_pool_backward)(
    const real* dy, real* dx, Axes axes, uint32_t channels, uint64_t inputs, uint32_t accumulate) {
    for_elements(i, inputs) {
        const Place p = place<false>(axes, channels, i);
        const Span d = holders(axes.d, p.d), h = holders(axes.h, p.h), w = holders(axes.w, p.w);
        float sum = 0.0f;
        for (uint32_t a = d.first; a < d.end; a++)
            for (uint32_t b = h.first; b < h.end; b++)
                for (uint32_t c = w.first; c < w.end; c++) sum += (float)dy[element<true>(axes, channels, p, a, b, c)];
        put(&dx[i], sum / (float)(axes.d.kernel * axes.h.kernel * axes.w.kernel), accumulate);
    }
}

// The maximum of a window and where it lies: NaN spreads, and of equals the first stays.
struct Largest {
    float value;
    uint32_t d, h, w;
};

__device__ inline Largest largest(const real* x, const Axes& axes, uint32_t channels, const Place& p) {
    const Span d = window(axes.d, p.d), h = window(axes.h, p.h), w = window(axes.w, p.w);
    Largest best = {-INFINITY, d.first, h.first, w.first};
    for (uint32_t a = d.first; a < d.end; a++)
        for (uint32_t b = h.first; b < h.end; b++)
            for (uint32_t c = w.first; c < w.end; c++) {
                const float candidate = x[element<false>(axes, channels, p, a, b, c)];
                if (candidate > best.value || isnan(candidate)) best = {candidate, a, b, c};
            }
    return best;
}

// y[o] = max x[window(o)]
extern "C" __global__ void KERNEL(max_pool_forward)(const real* x, real* y, Axes axes, uint32_t channels, uint64_t outputs) {
    for_elements(i, outputs) y[i] = largest(x, axes, channels, place<true>(axes, channels, i)).value;
}

// places[o] = voxel of the item that holds the maximum of window(o)
extern "C" __global__ void KERNEL(max_pool_places)(
    const real* x, uint32_t* places, Axes axes, uint32_t channels, uint64_t outputs) {
    for_elements(i, outputs) {
        const Largest at = largest(x, axes, channels, place<true>(axes, channels, i));
        places[i] = (at.d * axes.h.inputs + at.h) * axes.w.inputs + at.w;
    }
}

// dx[i] (+)= Σ dy[o] over the windows whose maximum lies at i
extern "C" __global__ void KERNEL(max_pool_backward)(
    const uint32_t* places, const real* dy, real* dx, Axes axes, uint32_t channels, uint64_t inputs,
    uint32_t accumulate) {
    for_elements(i, inputs) {
        const Place p = place<false>(axes, channels, i);
        const uint32_t voxel = (p.d * axes.h.inputs + p.h) * axes.w.inputs + p.w;
        const Span d = holders(axes.d, p.d), h = holders(axes.h, p.h), w = holders(axes.w, p.w);
        float sum = 0.0f;
        for (uint32_t a = d.first; a < d.end; a++)
            for (uint32_t b = h.first; b < h.end; b++)
                for (uint32_t c = w.first; c < w.end; c++) {
                    const uint64_t o = element<true>(axes, channels, p, a, b, c);
                    if (places[o] == voxel) sum += (float)dy[o];
                }
        put(&dx[i], sum, accumulate);
    }
}
