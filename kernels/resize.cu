// Trilinear resizing of volumes [batch, D, H, W, C], and its adjoint.
//
// One thread an element of what is written. An output draws on two inputs an axis (one where the weight of the other is
// zero); the gradient of an input is gathered from the outputs near it, which are found by inverting the map of the axis
// and trying its neighbours, so that the same rule decides in both directions. Positions are computed in f64, as on the
// CPU: at 1024 voxels an f32 position would be off by 1e-4 of a weight. Compulsory bytes 4·(|x| + |y|); up to 16 FLOPs an
// output. A faster one would keep the three axes' taps in shared memory instead of computing them anew.

#include "axes.cuh"

struct Taps {
    uint32_t low, high;
    double low_weight, high_weight;
};

// The inputs that output `o` lies between. `aligned`: the corners' centres coincide; else the volumes' borders do.
__device__ inline Taps taps(const Axis& a, uint32_t o, bool aligned) {
    double position;
    if (!aligned) {
        position = ((double)o + 0.5) * (double)a.inputs / (double)a.outputs - 0.5;
        position = position > 0.0 ? position : 0.0;
    } else {
        position = a.outputs == 1 ? 0.0 : (double)((uint64_t)o * (a.inputs - 1)) / (double)(a.outputs - 1);
    }
    const uint32_t low = min((uint32_t)position, a.inputs - 1);
    const double fraction = low + 1 < a.inputs ? position - (double)low : 0.0;
    return {low, min(low + 1, a.inputs - 1), 1.0 - fraction, fraction};
}

// Outputs that may draw on input `i`: one more on either side than the map's inverse says.
__device__ inline Span near(const Axis& a, uint32_t i, bool aligned) {
    const double last_in = (double)a.inputs - 1.0, last_out = (double)a.outputs - 1.0;
    double first, end;
    if (!aligned) {
        const double ratio = (double)a.outputs / (double)a.inputs;
        first = ((double)i - 0.5) * ratio - 1.5;
        end = ((double)i + 1.5) * ratio + 1.5;
    } else if (a.inputs == 1 || a.outputs == 1) {
        return {0, a.outputs};
    } else {
        first = ((double)i - 1.0) * last_out / last_in - 1.0;
        end = ((double)i + 1.0) * last_out / last_in + 2.0;
    }
    first = first > 0.0 ? first : 0.0;
    end = i + 1 == a.inputs || end > (double)a.outputs ? (double)a.outputs : end;
    return {i == 0 ? 0 : (uint32_t)first, (uint32_t)end};
}

// Weight of input `i` in output `o`.
__device__ inline double weight(const Axis& a, uint32_t o, uint32_t i, bool aligned) {
    const Taps t = taps(a, o, aligned);
    return (t.low == i ? t.low_weight : 0.0) + (t.high == i ? t.high_weight : 0.0);
}

extern "C" __global__ void resize_forward(
    const float* x, float* y, Axes axes, uint32_t channels, uint64_t outputs, uint32_t aligned) {
    for_elements(i, outputs) {
        const Place p = place<true>(axes, channels, i);
        const Taps d = taps(axes.d, p.d, aligned), h = taps(axes.h, p.h, aligned), w = taps(axes.w, p.w, aligned);
        float sum = 0.0f;
        for (int corner = 0; corner < 8; corner++) {
            const float wd = corner & 4 ? d.high_weight : d.low_weight;
            const float wh = corner & 2 ? h.high_weight : h.low_weight;
            const float ww = corner & 1 ? w.high_weight : w.low_weight;
            const float weight = wd * wh * ww;
            // What weighs nothing is not read: it may be infinite.
            if (weight == 0.0f) continue;
            sum += weight * x[element<false>(axes, channels, p, corner & 4 ? d.high : d.low, corner & 2 ? h.high : h.low,
                                 corner & 1 ? w.high : w.low)];
        }
        y[i] = sum;
    }
}

extern "C" __global__ void resize_backward(
    const float* dy, float* dx, Axes axes, uint32_t channels, uint64_t inputs, uint32_t aligned, uint32_t accumulate) {
    for_elements(i, inputs) {
        const Place p = place<false>(axes, channels, i);
        const Span d = near(axes.d, p.d, aligned), h = near(axes.h, p.h, aligned), w = near(axes.w, p.w, aligned);
        // Enlarging by a large factor makes this a long sum.
        double sum = 0.0;
        for (uint32_t a = d.first; a < d.end; a++) {
            const double wd = weight(axes.d, a, p.d, aligned);
            if (wd == 0.0) continue;
            for (uint32_t b = h.first; b < h.end; b++) {
                const double wh = wd * weight(axes.h, b, p.h, aligned);
                if (wh == 0.0) continue;
                for (uint32_t c = w.first; c < w.end; c++) {
                    const double ww = wh * weight(axes.w, c, p.w, aligned);
                    if (ww != 0.0) sum += ww * (double)dy[element<true>(axes, channels, p, a, b, c)];
                }
            }
        }
        put(&dx[i], (float)sum, accumulate);
    }
}
