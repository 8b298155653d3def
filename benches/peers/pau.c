// The Padé unit of orders 5/4 on the CPU as the official CUDA kernel has it: one pass forward, one backward that saves x only
// and sums the coefficients' gradients in double. benches/peers/speed.py compiles it: the strongest form of the peer.
#include <math.h>
#include <stddef.h>

#define BLOCK 4096

void pau_forward(const float *restrict x, const float *n, const float *d, float *restrict y, size_t count) {
    const float n0 = n[0], n1 = n[1], n2 = n[2], n3 = n[3], n4 = n[4], n5 = n[5];
    const float d0 = fabsf(d[0]), d1 = fabsf(d[1]), d2 = fabsf(d[2]), d3 = fabsf(d[3]);
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < count; i++) {
        float x1 = x[i], x2 = x1 * x1, x3 = x2 * x1, x4 = x3 * x1, x5 = x4 * x1;
        float p = n0 + x1 * n1 + x2 * n2 + x3 * n3 + x4 * n4 + x5 * n5;
        float q = 1.f + fabsf(x1) * d0 + fabsf(x2) * d1 + fabsf(x3) * d2 + fabsf(x4) * d3;
        y[i] = p / q;
    }
}

void pau_backward(const float *restrict g, const float *restrict x, const float *n, const float *d, float *restrict dx,
                  double *dn, double *dd, size_t count) {
    const float n0 = n[0], n1 = n[1], n2 = n[2], n3 = n[3], n4 = n[4], n5 = n[5];
    const float d0 = fabsf(d[0]), d1 = fabsf(d[1]), d2 = fabsf(d[2]), d3 = fabsf(d[3]);
    double sums[10] = {0};
#pragma omp parallel
    {
        double own[10] = {0};
#pragma omp for schedule(static)
        for (size_t block = 0; block < (count + BLOCK - 1) / BLOCK; block++) {
            size_t low = block * BLOCK, high = low + BLOCK < count ? low + BLOCK : count;
            // Floats within a block of 4096, doubles between blocks.
            float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4, s5, t0, t1, t2, t3)
            for (size_t i = low; i < high; i++) {
                float x1 = x[i], x2 = x1 * x1, x3 = x2 * x1, x4 = x3 * x1, x5 = x4 * x1;
                float p = n0 + x1 * n1 + x2 * n2 + x3 * n3 + x4 * n4 + x5 * n5;
                float q = 1.f + fabsf(x1) * d0 + fabsf(x2) * d1 + fabsf(x3) * d2 + fabsf(x4) * d3;
                float dp = n1 + 2 * n2 * x1 + 3 * n3 * x2 + 4 * n4 * x3 + 5 * n5 * x4;
                float dq = copysignf(1.f, x1) * (d0 + 2 * d1 * fabsf(x1) + 3 * d2 * fabsf(x2) + 4 * d3 * fabsf(x3));
                float inverse = 1.f / q, slope = -p * inverse * inverse;
                dx[i] = (dp * inverse + dq * slope) * g[i];
                float gi = g[i] * inverse, gm = g[i] * slope;
                s0 += gi, s1 += x1 * gi, s2 += x2 * gi, s3 += x3 * gi, s4 += x4 * gi, s5 += x5 * gi;
                t0 += gm * fabsf(x1), t1 += gm * fabsf(x2), t2 += gm * fabsf(x3), t3 += gm * fabsf(x4);
            }
            own[0] += s0, own[1] += s1, own[2] += s2, own[3] += s3, own[4] += s4, own[5] += s5;
            own[6] += t0, own[7] += t1, own[8] += t2, own[9] += t3;
        }
#pragma omp critical
        for (int k = 0; k < 10; k++) sums[k] += own[k];
    }
    for (int k = 0; k < 6; k++) dn[k] = sums[k];
    for (int k = 0; k < 4; k++) dd[k] = sums[6 + k] * copysign(1.0, d[k]);
}
