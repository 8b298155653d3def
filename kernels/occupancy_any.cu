// Occupancy decoders with any other activation: which one is a matter of run time, for it takes little of the time. The page
// is occupancy.cuh.

#include "occupancy.cuh"

// One of the functions of activation.cuh; `kind` as `kind` of src/ops/fused_decoder/cuda.rs counts them.
struct Any {
    static constexpr bool BOUNDED = true;
    const float *numerator, *denominator;
    uint32_t kind, numerators, denominators;
    float slope;

    __device__ Any(const float* numerator, const float* denominator, const occupancy::Decoder& d)
        : numerator(numerator), denominator(denominator), kind(d.kind), numerators(d.numerators),
          denominators(d.denominators), slope(d.slope) {}

    template <class F> __device__ float as(float x) const { return F(numerator, denominator, slope).value(x); }

    __device__ float value(float x) const {
        switch (kind) {
        case 0: return as<Identity>(x);
        case 1: return as<Leaky<0>>(x);
        case 2: return as<Leaky<1>>(x);
        case 3: return as<Selu>(x);
        case 4: return as<Swish>(x);
        case 5: return as<Softplus>(x);
        case 6: return as<Tanh>(x);
        case 7: return as<Sigmoid>(x);
        default: return pade(x);
        }
    }
    __device__ bool extreme(float x) const { return kind == 8 && !(fabsf(x) <= 1024.0f); }

    // As Pade of activation.cuh, with orders that the compiler does not know.
    __device__ float pade(float x) const {
        const float a = fabsf(x);
        float p = 0.0f, q = 0.0f;
        for (uint32_t i = numerators; i-- > 0;) p = fmaf(p, x, numerator[i]);
        for (uint32_t j = denominators; j-- > 0;) q = fmaf(q, a, fabsf(denominator[j]));
        return p / fmaf(q, a, 1.0f);
    }
    __device__ float extreme_value(float x) const {
        const double a = fabs((double)x), t = 1.0 / a, sign = copysign(1.0, (double)x);
        double p = 0.0, q = 1.0;
        for (uint32_t i = 0; i < numerators; i++) p = fma(p, t, i % 2 ? sign * numerator[i] : (double)numerator[i]);
        for (uint32_t j = 0; j < denominators; j++) q = fma(q, t, (double)fabsf(denominator[j]));
        return (float)(p / q * (numerators == denominators + 2 ? a : 1.0));
    }
};

OCCUPANCIES(any, Any(numerator, denominator, d))
