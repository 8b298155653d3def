// Ten-point transforms of seven-voxel lines, in registers. Formulas: src/ops/patch_conv/dft.rs.
//
// Ten is 2·5 with coprime factors, so that a transform is five sums and five differences followed by two five-point
// transforms, without twiddle factors: bin k is element k mod 5 of the transform of the sums (even k) or differences (odd k)
// of elements 2n and 2n + 5 (mod 10). Elements 7, 8, 9 of a line are zero, and of an inverse only elements 3 … 9 are wanted.
#pragma once

#include "common.cuh"

constexpr int BINS = 10;
// Bins of a real line that are not conjugates of others.
constexpr int HALF = BINS / 2 + 1;

constexpr float COS1 = 0.30901699437f, COS2 = -0.80901699437f; // cos(2π/5), cos(4π/5)
constexpr float SIN1 = 0.95105651629f, SIN2 = 0.58778525229f;  // sin(2π/5), sin(4π/5)

__device__ inline float2 operator+(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }
__device__ inline float2 operator-(float2 a, float2 b) { return {a.x - b.x, a.y - b.y}; }
__device__ inline float2 operator-(float2 a) { return {-a.x, -a.y}; }
__device__ inline float2 conjugate(float2 a) { return {a.x, -a.y}; }
// base + c·a + d·b
__device__ inline float mix(float base, float c, float a, float d, float b) { return fmaf(c, a, fmaf(d, b, base)); }
__device__ inline float2 mix(float2 base, float c, float2 a, float d, float2 b) {
    return {mix(base.x, c, a.x, d, b.x), mix(base.y, c, a.y, d, b.y)};
}
// a − i·b and a + i·b
__device__ inline float2 minus_i(float2 a, float2 b) { return {a.x + b.y, a.y - b.x}; }
__device__ inline float2 plus_i(float2 a, float2 b) { return {a.x - b.y, a.y + b.x}; }

// Σ x[n]·e^(∓2πi·n·k/5): forward, or inverse.
template <bool INVERSE> __device__ inline void five(const float2 (&x)[5], float2 (&y)[5]) {
    const float2 a = x[1] + x[4], b = x[2] + x[3], c = x[1] - x[4], d = x[2] - x[3], zero = {0.0f, 0.0f};
    const float2 m1 = mix(x[0], COS1, a, COS2, b), m2 = mix(x[0], COS2, a, COS1, b);
    const float2 s1 = mix(zero, SIN1, c, SIN2, d), s2 = mix(zero, SIN2, c, -SIN1, d);
    y[0] = x[0] + (a + b);
    y[1] = INVERSE ? plus_i(m1, s1) : minus_i(m1, s1);
    y[2] = INVERSE ? plus_i(m2, s2) : minus_i(m2, s2);
    y[3] = INVERSE ? minus_i(m2, s2) : plus_i(m2, s2);
    y[4] = INVERSE ? minus_i(m1, s1) : plus_i(m1, s1);
}

// Ten bins of a complex line of seven.
__device__ inline void ten(const float2 (&x)[7], float2 (&y)[BINS]) {
    const float2 sums[5] = {x[0] + x[5], x[2], x[4], x[6] + x[1], x[3]};
    const float2 differences[5] = {x[0] - x[5], x[2], x[4], x[6] - x[1], -x[3]};
    float2 even[5], odd[5];
    five<false>(sums, even), five<false>(differences, odd);
#pragma unroll
    for (int k = 0; k < BINS; k++) y[k] = k % 2 == 0 ? even[k % 5] : odd[k % 5];
}

// Elements 3 … 9 of ten times the inverse.
__device__ inline void ten_inverse(const float2 (&x)[BINS], float2 (&y)[7]) {
    float2 sums[5], differences[5], even[5], odd[5];
#pragma unroll
    for (int n = 0; n < 5; n++) {
        sums[n] = x[2 * n] + x[(2 * n + 5) % BINS];
        differences[n] = x[2 * n] - x[(2 * n + 5) % BINS];
    }
    five<true>(sums, even), five<true>(differences, odd);
#pragma unroll
    for (int n = 3; n < BINS; n++) y[n - 3] = n % 2 == 0 ? even[n % 5] : odd[n % 5];
}

// Bins 0, 1 and 2 of a real line of five.
__device__ inline void five_real(const float (&x)[5], float2 (&y)[3]) {
    const float a = x[1] + x[4], b = x[2] + x[3], c = x[1] - x[4], d = x[2] - x[3];
    y[0] = {x[0] + (a + b), 0.0f};
    y[1] = {mix(x[0], COS1, a, COS2, b), -mix(0.0f, SIN1, c, SIN2, d)};
    y[2] = {mix(x[0], COS2, a, COS1, b), -mix(0.0f, SIN2, c, -SIN1, d)};
}

// Bins 0 … 5 of a real line of seven.
__device__ inline void ten_real(const float (&x)[7], float2 (&y)[HALF]) {
    const float sums[5] = {x[0] + x[5], x[2], x[4], x[6] + x[1], x[3]};
    const float differences[5] = {x[0] - x[5], x[2], x[4], x[6] - x[1], -x[3]};
    float2 even[3], odd[3];
    five_real(sums, even), five_real(differences, odd);
    y[0] = even[0], y[1] = odd[1], y[2] = even[2];
    y[3] = conjugate(odd[2]), y[4] = conjugate(even[1]), y[5] = odd[0];
}

// Inverse of the spectrum h0, h1, h2, h2*, h1* of a real line of five.
__device__ inline void five_to_real(float h0, float2 h1, float2 h2, float (&y)[5]) {
    h1 = h1 + h1, h2 = h2 + h2;
    const float m1 = mix(h0, COS1, h1.x, COS2, h2.x), m2 = mix(h0, COS2, h1.x, COS1, h2.x);
    const float s1 = mix(0.0f, SIN1, h1.y, SIN2, h2.y), s2 = mix(0.0f, SIN2, h1.y, -SIN1, h2.y);
    y[0] = h0 + (h1.x + h2.x), y[1] = m1 - s1, y[2] = m2 - s2, y[3] = m2 + s2, y[4] = m1 + s1;
}

// Elements 3 … 9 of ten times the inverse of a real line's bins 0 … 5.
__device__ inline void ten_to_real(const float2 (&x)[HALF], float (&y)[7]) {
    const float2 x7 = conjugate(x[3]), x9 = conjugate(x[1]);
    float even[5], odd[5];
    five_to_real(x[0].x + x[5].x, x[2] + x7, x[4] + x9, even);
    five_to_real(x[0].x - x[5].x, x[2] - x7, x[4] - x9, odd);
#pragma unroll
    for (int n = 3; n < BINS; n++) y[n - 3] = n % 2 == 0 ? even[n % 5] : odd[n % 5];
}
