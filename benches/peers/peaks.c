// What this machine can do at best, measured: fused multiply-adds a second in f32, and bytes a second through memory.
// benches/peers/speed.py compiles it; prints FLOP/s and bytes/s.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LANES 16
#define CHAINS 16
#define STREAM (1 << 26)

typedef float lane __attribute__((vector_size(4 * LANES)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Chains that do not wait for each other, in registers.
static double fma_peak(void) {
    const long rounds = 4000000;
    double best = 0;
    for (int attempt = 0; attempt < 5; attempt++) {
        int threads = 0;
        float kept = 0;
        double start = now();
#pragma omp parallel reduction(+ : threads, kept)
        {
            lane a[CHAINS], factor, term;
            for (int l = 0; l < LANES; l++) factor[l] = 0.999f, term[l] = 0.001f;
            for (int c = 0; c < CHAINS; c++) a[c] = term * (float)c;
            for (long r = 0; r < rounds; r++)
#pragma GCC unroll 16
                for (int c = 0; c < CHAINS; c++) a[c] = a[c] * factor + term;
            for (int c = 0; c < CHAINS; c++) kept += a[c][c % LANES];
            threads = 1;
        }
        double rate = 2.0 * LANES * CHAINS * rounds * threads / (now() - start);
        if (rate > best && kept == kept) best = rate;
    }
    return best;
}

// a = b + s c over arrays that no cache holds. Reads of the written lines count too: they happen.
static double stream_peak(void) {
    float *a = malloc(4L * STREAM), *b = malloc(4L * STREAM), *c = malloc(4L * STREAM);
    if (!a || !b || !c) return 0;
    double best = 0;
    for (int attempt = 0; attempt < 6; attempt++) {
        double start = now();
#pragma omp parallel for simd schedule(static)
        for (long i = 0; i < STREAM; i++) a[i] = attempt ? b[i] + 0.5f * c[i] : (b[i] = 1, c[i] = 2);
        double rate = 4.0 * 4 * STREAM / (now() - start);
        // The first round makes the pages.
        if (attempt && rate > best) best = rate;
    }
    return best + 0 * a[7];
}

int main(void) {
    printf("{\"flops\": %.4e, \"bytes\": %.4e}\n", fma_peak(), stream_peak());
    return 0;
}
