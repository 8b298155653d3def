// Activations as functions of one number, for kernels to be made of: value, slope, and the gradients of learnt coefficients.
//
// Each is a struct that reads its coefficients once into registers. `gradient(x, g, sums)` returns g·f'(x) and adds
// g·∂f/∂c_k to sums[k]; `finish` turns these sums into gradients. Formulas: src/ops/activation.
#pragma once

#include "vec4.cuh"

// A function without learnt coefficients that f32 holds everywhere.
struct Plain {
    static constexpr int COEFFICIENTS = 0;
    static constexpr bool BOUNDED = false, PADDED = false;
    __device__ Plain(const float*, const float*, float) {}
    __device__ static bool extreme(float) { return false; }
    __device__ float extreme_value(float x) const { return x; }
    __device__ float extreme_gradient(float, float g, float*) const { return g; }
    __device__ void finish(float*) const {}
    __device__ int place(int k) const { return k; }
};

struct Identity : Plain {
    using Plain::Plain;
    __device__ float value(float x) const { return x; }
    __device__ float gradient(float, float g, float*) const { return g; }
};

// x if positive, else slope·x; LEARNT: the slope is a coefficient.
template <int LEARNT> struct Leaky : Plain {
    static constexpr int COEFFICIENTS = LEARNT;
    float slope;
    __device__ Leaky(const float* learnt, const float* none, float given)
        : Plain(learnt, none, given), slope(LEARNT ? *learnt : given) {}
    __device__ float value(float x) const {
        // A slope of zero times minus infinity would be NaN.
        return x < 0.0f ? (slope == 0.0f ? 0.0f : x * slope) : x;
    }
    __device__ float gradient(float x, float g, float* sums) const {
        if (LEARNT) sums[0] = fmaf(g, x > 0.0f ? 0.0f : x, sums[0]);
        return x > 0.0f ? g : g * slope;
    }
};

struct Selu : Plain {
    using Plain::Plain;
    static constexpr float SCALE = 1.050701f, SCALE_ALPHA = 1.7580993f;
    __device__ float value(float x) const { return x > 0.0f ? SCALE * x : SCALE_ALPHA * expm1f(x); }
    __device__ float gradient(float x, float g, float*) const { return g * (x > 0.0f ? SCALE : SCALE_ALPHA * expf(x)); }
};

// σ(x) and σ(−x) = 1 − σ(x), both without cancellation.
__device__ inline float2 sigmoids(float x) {
    const float e = expf(-fabsf(x));
    const float large = 1.0f / (1.0f + e), small = e * large;
    return x < 0.0f ? make_float2(small, large) : make_float2(large, small);
}

struct Sigmoid : Plain {
    using Plain::Plain;
    __device__ float value(float x) const { return sigmoids(x).x; }
    __device__ float gradient(float x, float g, float*) const {
        const float2 s = sigmoids(x);
        return g * (s.x * s.y);
    }
};

struct Swish : Plain {
    using Plain::Plain;
    __device__ float value(float x) const { return x * sigmoids(x).x; }
    __device__ float gradient(float x, float g, float*) const {
        const float2 s = sigmoids(x);
        return g * fmaf(x * s.x, s.y, s.x);
    }
};

struct Softplus : Plain {
    using Plain::Plain;
    // max(x, 0) that keeps NaN.
    __device__ float value(float x) const { return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x))); }
    __device__ float gradient(float x, float g, float*) const { return g * sigmoids(x).x; }
};

struct Tanh : Plain {
    using Plain::Plain;
    __device__ float value(float x) const { return tanhf(x); }
    __device__ float gradient(float x, float g, float*) const {
        // 1 − tanh² = 4e/(1 + e)² with e = e^(−2|x|).
        const float e = expf(-2.0f * fabsf(x)), root = 2.0f / (1.0f + e);
        return g * (e * (root * root));
    }
};

// Padé unit P(x)/Q(x), P = Σ n_i x^i with N coefficients, Q = 1 + Σ |d_j||x|^{j+1} with D.
//
// Beyond |x| = 1024 powers could overflow: both polynomials are divided by powers of |x| and evaluated in 1/|x|, in f64,
// where even the eighth power of the reciprocal of the largest f32 is still a number. Such arguments are rare: kernels only
// note that there were some, and go over their elements once more if so.
//
// ANY: the unit may have fewer coefficients, and `given` says how many: 32 × the numerator's + the denominator's. The others
// are zeros that change no bit of a sum.
template <int N, int D, bool ANY = false> struct Pade {
    static constexpr int COEFFICIENTS = N + D;
    static constexpr bool BOUNDED = true, PADDED = ANY;
    const float *numerator, *denominator;
    int numerators, denominators;
    float n[N], d[D]; // magnitudes

    __device__ Pade(const float* numerator, const float* denominator, float given)
        : numerator(numerator), denominator(denominator), numerators(ANY ? (int)given / 32 : N),
          denominators(ANY ? (int)given % 32 : D) {
        for (int i = 0; i < N; i++) n[i] = read_numerator(i);
        for (int j = 0; j < D; j++) d[j] = fabsf(read_denominator(j));
    }
    __device__ float read_numerator(int i) const { return !ANY || i < numerators ? numerator[i] : 0.0f; }
    __device__ float read_denominator(int j) const { return !ANY || j < denominators ? denominator[j] : 0.0f; }
    // The place of the k-th sum among the unit's own coefficients; COEFFICIENTS if it is none of them.
    __device__ int place(int k) const {
        return k < numerators ? k : k >= N && k - N < denominators ? numerators + k - N : COEFFICIENTS;
    }
    __device__ static bool extreme(float x) { return !(fabsf(x) <= 1024.0f); }

    __device__ void fraction(float x, float a, float& p, float& q) const {
        p = n[N - 1];
        for (int i = N - 2; i >= 0; i--) p = fmaf(p, x, n[i]);
        q = d[D - 1];
        for (int j = D - 2; j >= 0; j--) q = fmaf(q, a, d[j]);
        q = fmaf(q, a, 1.0f);
    }
    __device__ float value(float x) const {
        float p, q;
        fraction(x, fabsf(x), p, q);
        return p / q;
    }
    __device__ float gradient(float x, float g, float* sums) const {
        const float a = fabsf(x);
        float p, q;
        fraction(x, a, p, q);
        float dp = (N - 1) * n[N - 1];
        for (int i = N - 2; i >= 1; i--) dp = fmaf(dp, x, i * n[i]);
        float dq = D * d[D - 1];
        for (int j = D - 1; j >= 1; j--) dq = fmaf(dq, a, j * d[j - 1]);
        const float sign = x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
        const float reciprocal = __frcp_rn(q), y = p * reciprocal, gq = g * reciprocal;
        float term = gq;
        sums[0] += term;
        for (int i = 1; i < N; i++) {
            term *= x;
            sums[i] += term;
        }
        term = gq * y;
        for (int j = 0; j < D; j++) {
            term *= a;
            sums[N + j] += term;
        }
        return gq * fmaf(-y, sign * dq, dp);
    }
    // ∂F/∂d_j has the sign −sign(d_j), and sign(0) = 0.
    __device__ void finish(float* sums) const {
        for (int j = 0; j < D; j++) {
            const float signed_d = read_denominator(j);
            sums[N + j] = signed_d > 0.0f ? -sums[N + j] : signed_d < 0.0f ? sums[N + j] : 0.0f;
        }
    }

    // P/|x|^(N−1) and Q/|x|^D, t = 1/|x|: Horner from the constant term up. Coefficients are read again: converted copies
    // of those in registers would take as many more, all the time.
    __device__ void scaled(double sign, double t, double& p, double& q) const {
        p = 0.0;
        for (int i = 0; i < N; i++) p = fma(p, t, i % 2 ? sign * read_numerator(i) : (double)read_numerator(i));
        q = 1.0;
        for (int j = 0; j < D; j++) q = fma(q, t, (double)fabsf(read_denominator(j)));
    }
    __device__ float extreme_value(float x) const {
        const double a = fabs((double)x), sign = copysign(1.0, (double)x);
        double p, q;
        scaled(sign, 1.0 / a, p, q);
        return (float)(p / q * (N == D + 2 ? a : 1.0));
    }
    __device__ float extreme_gradient(float x, float g, float* sums) const {
        const double a = fabs((double)x), sign = copysign(1.0, (double)x), t = 1.0 / a;
        double p, q;
        scaled(sign, t, p, q);
        const double growth = N == D + 2 ? a : 1.0, ratio = p / q, gq = (double)g / q;
        double dp = 0.0, dq = 0.0; // P'/a^(N−2) and |Q'|/a^(D−1)
        for (int i = 1; i < N; i++) dp = fma(dp, t, i % 2 ? (double)i * read_numerator(i) : sign * i * read_numerator(i));
        for (int j = 0; j < D; j++) dq = fma(dq, t, (double)(j + 1) * fabsf(read_denominator(j)));
        // x^i/Q = sign^i·a^(i−D)/(Q/a^D), from i = N − 1 down.
        double term = gq * growth;
        for (int i = N - 1; i >= 0; i--) {
            sums[i] += (float)(i % 2 ? sign * term : term);
            term *= t;
        }
        term = gq * (ratio * growth);
        for (int j = D - 1; j >= 0; j--) {
            sums[N + j] += (float)term;
            term *= t;
        }
        return (float)(gq * (N == D + 2 ? 1.0 : t) * (dp - sign * ratio * dq));
    }
};

// f of four arguments; what it makes of extreme ones is to be replaced.
template <class F> __device__ inline Four values(const F& f, const Four& x, bool& extreme) {
    Four y;
    for (int k = 0; k < 4; k++) {
        y.v[k] = f.value(x.v[k]);
        extreme |= F::extreme(x.v[k]);
    }
    return y;
}

// g·f'(x) of four arguments, 0 for extreme ones; adds to `sums`.
template <class F> __device__ inline Four gradients(const F& f, const Four& x, const Four& g, float* sums, bool& extreme) {
    Four d;
    for (int k = 0; k < 4; k++) {
        const bool tame = !F::extreme(x.v[k]);
        d.v[k] = f.gradient(tame ? x.v[k] : 0.0f, tame ? g.v[k] : 0.0f, sums);
        extreme |= !tame;
    }
    return d;
}

// The block's sums of the coefficients' gradients, from the threads' own, to `out` [COEFFICIENTS, blocks] (of a padded unit
// its own alone); all threads must take part.
template <int BLOCK = THREADS, class F, int K> __device__ inline void leave_coefficients(const F& f, float (&sums)[K], float* out) {
    if constexpr (F::COEFFICIENTS > 0) {
        __shared__ float parts[BLOCK / WARP][WARP];
        f.finish(sums);
        for (int k = 0; k < K; k++) {
            const float sum = warp_sum(sums[k]);
            if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP][k] = sum;
        }
        __syncthreads();
        if (threadIdx.x < K) {
            double sum = 0.0;
            for (uint32_t w = 0; w < BLOCK / WARP; w++) sum += parts[w][threadIdx.x];
            const uint64_t blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
            const uint64_t block = ((uint64_t)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
            const uint32_t place = F::PADDED ? f.place(threadIdx.x) : threadIdx.x;
            if (!F::PADDED || place < K) out[place * blocks + block] = (float)sum;
        }
    }
}
