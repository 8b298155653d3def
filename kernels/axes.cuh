// The windows of one axis of a volume, for pooling and interpolation (`AxisWindows` in src/ops/cuda/axes.rs).
#pragma once

#include "common.cuh"

struct Axis {
    uint32_t inputs, outputs;
    uint32_t kernel; // voxels of a window; 0: bins that cover the axis
    uint32_t stride;
};

struct Axes {
    Axis d, h, w;
};

struct Span {
    uint32_t first, end;
};

// Inputs of the window of output `o`.
__device__ inline Span window(Axis a, uint32_t o) {
    if (a.kernel) return {o * a.stride, o * a.stride + a.kernel};
    const uint64_t first = (uint64_t)o * a.inputs / a.outputs;
    const uint64_t end = ((uint64_t)(o + 1) * a.inputs + a.outputs - 1) / a.outputs;
    return {(uint32_t)first, (uint32_t)end};
}

// Outputs whose window holds input `i`.
__device__ inline Span holders(Axis a, uint32_t i) {
    if (a.kernel) {
        const uint32_t first = i < a.kernel ? 0 : (i - a.kernel) / a.stride + 1;
        return {first, min(i / a.stride + 1, a.outputs)};
    }
    const uint64_t first = (uint64_t)i * a.outputs / a.inputs;
    const uint64_t end = ((uint64_t)(i + 1) * a.outputs + a.inputs - 1) / a.inputs;
    return {(uint32_t)first, (uint32_t)end};
}

// A place in a volume [batch, d, h, w, channels].
struct Place {
    uint64_t batch;
    uint32_t d, h, w, channel;
};

// The place of element `i` of the outputs, or of the inputs.
template <bool OUTPUT> __device__ inline Place place(const Axes& a, uint32_t channels, uint64_t i) {
    const uint32_t h = OUTPUT ? a.h.outputs : a.h.inputs, w = OUTPUT ? a.w.outputs : a.w.inputs;
    const uint32_t d = OUTPUT ? a.d.outputs : a.d.inputs;
    Place p;
    p.channel = i % channels;
    uint64_t rest = i / channels;
    p.w = rest % w;
    rest /= w;
    p.h = rest % h;
    rest /= h;
    p.d = rest % d;
    p.batch = rest / d;
    return p;
}

// Index of the voxel at (d, h, w) of the place's item, times the channels, plus its channel.
template <bool OUTPUT>
__device__ inline uint64_t element(const Axes& a, uint32_t channels, const Place& p, uint32_t d, uint32_t h, uint32_t w) {
    const uint32_t depth = OUTPUT ? a.d.outputs : a.d.inputs, height = OUTPUT ? a.h.outputs : a.h.inputs;
    const uint32_t width = OUTPUT ? a.w.outputs : a.w.inputs;
    return (((p.batch * depth + d) * height + h) * width + w) * channels + p.channel;
}
