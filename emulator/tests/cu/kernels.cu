// Kernels of the kinds an engine needs, as a compiler emits them: the emulator's integration tests run all of them.
#include <cuda_bf16.h>
#include <stdint.h>

// Rational activation of degree (5, 4) with the denominator 1 + |b1 x + .. + b4 x^4|; coefficients: 6 and then 4.
extern "C" __global__ void pade54(const float* __restrict__ x, const float* __restrict__ coef, float* __restrict__ y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    float p = coef[5];
    for (int k = 4; k >= 0; --k) p = fmaf(p, v, coef[k]);
    float q = coef[9];
    for (int k = 8; k >= 6; --k) q = fmaf(q, v, coef[k]);
    y[i] = p / (1.0f + fabsf(q * v));
}

// Sum of n floats: shuffles within warps, shared memory between them, one atomic a block.
extern "C" __global__ void block_reduce(const float* __restrict__ x, float* out, int n) {
    __shared__ float part[32];
    float s = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) s += x[i];
    for (int d = 16; d > 0; d >>= 1) s += __shfl_down_sync(0xffffffffu, s, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x < 32) {
        s = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.0f;
        for (int d = 16; d > 0; d >>= 1) s += __shfl_xor_sync(0xffffffffu, s, d);
        if (threadIdx.x == 0) atomicAdd(out, s);
    }
}

// C = A B, f32, 32 x 32 tiles, 32 x 8 threads, four rows a thread. Sums run over k in ascending order.
extern "C" __global__ void gemm32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
    __shared__ float ta[32][33], tb[32][33];
    int col = blockIdx.x * 32 + threadIdx.x, row0 = blockIdx.y * 32;
    float acc[4] = {0, 0, 0, 0};
    for (int k0 = 0; k0 < k; k0 += 32) {
        for (int r = threadIdx.y; r < 32; r += 8) {
            int ar = row0 + r, ac = k0 + threadIdx.x, br = k0 + r;
            ta[r][threadIdx.x] = ar < m && ac < k ? a[ar * k + ac] : 0.0f;
            tb[r][threadIdx.x] = br < k && col < n ? b[br * n + col] : 0.0f;
        }
        __syncthreads();
        for (int j = 0; j < 32; ++j)
            for (int r = 0; r < 4; ++r) acc[r] = fmaf(ta[threadIdx.y + 8 * r][j], tb[j][threadIdx.x], acc[r]);
        __syncthreads();
    }
    for (int r = 0; r < 4; ++r) {
        int row = row0 + threadIdx.y + 8 * r;
        if (row < m && col < n) c[row * n + col] = acc[r];
    }
}

// Steps of the Collatz sequence: every lane leaves the loop at its own time.
extern "C" __global__ void collatz(uint32_t* steps, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint64_t v = i + 1;
    uint32_t s = 0;
    while (v != 1) {
        v = v & 1 ? 3 * v + 1 : v >> 1;
        ++s;
    }
    steps[i] = s;
}

// C[m][n] = A[m][k] B[n][k]^T in bf16 with f32 sums, 64 x 32 tiles of a block of 4 warps; two buffers filled by cp.async.
extern "C" __global__ void gemm_bf16(const __nv_bfloat16* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c, int n, int k) {
    __shared__ __align__(16) __nv_bfloat16 sa[2][64][40], sb[2][32][40];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const __nv_bfloat16* ga = a + (size_t)blockIdx.y * 64 * k;
    const __nv_bfloat16* gb = b + (size_t)blockIdx.x * 32 * k;
    auto load = [&](int buffer, int k0) {
        for (int t = threadIdx.x; t < 64 * 4; t += 128) {
            uint32_t dst = (uint32_t)__cvta_generic_to_shared(&sa[buffer][t / 4][t % 4 * 8]);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(ga + (size_t)(t / 4) * k + k0 + t % 4 * 8));
        }
        for (int t = threadIdx.x; t < 32 * 4; t += 128) {
            uint32_t dst = (uint32_t)__cvta_generic_to_shared(&sb[buffer][t / 4][t % 4 * 8]);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(gb + (size_t)(t / 4) * k + k0 + t % 4 * 8));
        }
        asm volatile("cp.async.commit_group;");
    };
    float acc[4][4] = {};
    load(0, 0);
    for (int k0 = 0, buffer = 0; k0 < k; k0 += 32, buffer ^= 1) {
        if (k0 + 32 < k) {
            load(buffer ^ 1, k0 + 32);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        __syncthreads();
        for (int kk = 0; kk < 32; kk += 16) {
            uint32_t fa[4];
            uint32_t pa = (uint32_t)__cvta_generic_to_shared(&sa[buffer][warp * 16 + lane % 16][kk + lane / 16 * 8]);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3]) : "r"(pa));
            for (int j = 0; j < 4; ++j) {
                uint32_t fb[2];
                uint32_t pb = (uint32_t)__cvta_generic_to_shared(&sb[buffer][j * 8 + lane % 8][kk + lane / 8 % 2 * 8]);
                asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(fb[0]), "=r"(fb[1]) : "r"(pb));
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                             : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3])
                             : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
            }
        }
        __syncthreads();
    }
    for (int j = 0; j < 4; ++j)
        for (int e = 0; e < 4; ++e) {
            int row = blockIdx.y * 64 + warp * 16 + lane / 4 + e / 2 * 8, col = blockIdx.x * 32 + j * 8 + lane % 4 * 2 + e % 2;
            c[(size_t)row * n + col] = acc[j][e];
        }
}

// C[16][8] = A[16][k] B[k][8] in tf32, one warp.
extern "C" __global__ void gemm_tf32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int k) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float d[4] = {};
    for (int k0 = 0; k0 < k; k0 += 8) {
        float va[4] = {a[g * k + k0 + t], a[(g + 8) * k + k0 + t], a[g * k + k0 + t + 4], a[(g + 8) * k + k0 + t + 4]};
        float vb[2] = {b[(k0 + t) * 8 + g], b[(k0 + t + 4) * 8 + g]};
        uint32_t ua[4], ub[2];
        for (int e = 0; e < 4; ++e) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(ua[e]) : "f"(va[e]));
        for (int e = 0; e < 2; ++e) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(ub[e]) : "f"(vb[e]));
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(ua[0]), "r"(ua[1]), "r"(ua[2]), "r"(ua[3]), "r"(ub[0]), "r"(ub[1]));
    }
    c[g * 8 + 2 * t] = d[0], c[g * 8 + 2 * t + 1] = d[1], c[(g + 8) * 8 + 2 * t] = d[2], c[(g + 8) * 8 + 2 * t + 1] = d[3];
}

// Keeps the positive values in order: ballots within warps, a scan over warps, and the blocks before it by their counts.
extern "C" __global__ void count_positive(const float* __restrict__ x, uint32_t* counts, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int c = __syncthreads_count(i < n && x[i] > 0.0f);
    if (threadIdx.x == 0) counts[blockIdx.x] = c;
}
extern "C" __global__ void compact(const float* __restrict__ x, const uint32_t* __restrict__ counts, float* out, int n) {
    __shared__ uint32_t before[33];
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float v = i < n ? x[i] : 0.0f;
    uint32_t ballot = __ballot_sync(0xffffffffu, v > 0.0f);
    if (lane == 0) before[warp + 1] = __popc(ballot);
    if (threadIdx.x == 0) {
        uint32_t base = 0;
        for (int b = 0; b < blockIdx.x; ++b) base += counts[b];
        before[0] = base;
    }
    __syncthreads();
    if (warp == 0) {
        uint32_t s = lane < blockDim.x / 32 ? before[lane + 1] : 0;
        for (int d = 1; d < 32; d <<= 1) {
            uint32_t o = __shfl_up_sync(0xffffffffu, s, d);
            if (lane >= d) s += o;
        }
        __syncwarp();
        if (lane < blockDim.x / 32) before[lane + 1] = s;
    }
    __syncthreads();
    uint32_t base = before[0] + (warp ? before[warp] : 0);
    if (v > 0.0f) out[base + __popc(ballot & ((1u << lane) - 1))] = v;
}

// Mean and variance of one channel a block, in f64, with shuffles of 64-bit values.
__device__ double warp_sum(double v) {
    for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
    return v;
}
extern "C" __global__ void moments(const float4* __restrict__ x, double* out, int quads) {
    __shared__ double part[2][32];
    double s = 0, q = 0;
    for (int i = threadIdx.x; i < quads; i += blockDim.x) {
        float4 v = x[blockIdx.x * quads + i];
        s += (double)v.x + v.y + v.z + v.w;
        q += (double)v.x * v.x + (double)v.y * v.y + (double)v.z * v.z + (double)v.w * v.w;
    }
    s = warp_sum(s), q = warp_sum(q);
    if (threadIdx.x % 32 == 0) part[0][threadIdx.x / 32] = s, part[1][threadIdx.x / 32] = q;
    __syncthreads();
    if (threadIdx.x < 32) {
        bool in = threadIdx.x < blockDim.x / 32;
        s = warp_sum(in ? part[0][threadIdx.x] : 0.0), q = warp_sum(in ? part[1][threadIdx.x] : 0.0);
        if (threadIdx.x == 0) {
            double n = 4.0 * quads, mean = s / n;
            out[2 * blockIdx.x] = mean, out[2 * blockIdx.x + 1] = q / n - mean * mean;
        }
    }
}

// Trilinear sampling of a volume [d][h][w] at points (z, y, x), and its adjoint.
__device__ void corners(const float* p, int d, int h, int w, int (&at)[8], float (&weight)[8]) {
    float z = floorf(p[0]), y = floorf(p[1]), x = floorf(p[2]);
    float fz = p[0] - z, fy = p[1] - y, fx = p[2] - x;
    for (int c = 0; c < 8; ++c) {
        int iz = (int)z + (c >> 2), iy = (int)y + (c >> 1 & 1), ix = (int)x + (c & 1);
        bool in = iz >= 0 && iz < d && iy >= 0 && iy < h && ix >= 0 && ix < w;
        at[c] = in ? (iz * h + iy) * w + ix : -1;
        weight[c] = (c >> 2 ? fz : 1 - fz) * (c >> 1 & 1 ? fy : 1 - fy) * (c & 1 ? fx : 1 - fx);
    }
}
extern "C" __global__ void trilinear(const float* __restrict__ volume, const float* __restrict__ points, float* out, int d, int h, int w, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int at[8];
    float weight[8], s = 0;
    corners(points + 3 * i, d, h, w, at, weight);
    for (int c = 0; c < 8; ++c)
        if (at[c] >= 0) s = fmaf(weight[c], volume[at[c]], s);
    out[i] = s;
}
extern "C" __global__ void trilinear_adjoint(float* volume, const float* __restrict__ points, const float* __restrict__ grad, int d, int h, int w, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int at[8];
    float weight[8];
    corners(points + 3 * i, d, h, w, at, weight);
    for (int c = 0; c < 8; ++c)
        if (at[c] >= 0) atomicAdd(volume + at[c], weight[c] * grad[i]);
}

// The mathematical functions of the compiler's library.
extern "C" __global__ void functions(const float* __restrict__ x, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i], a = fabsf(v) + 0.1f;
    out[i] = expf(v), out[n + i] = logf(a), out[2 * n + i] = tanhf(v), out[3 * n + i] = sinf(v * 1e4f), out[4 * n + i] = powf(a, 1.7f),
    out[5 * n + i] = rsqrtf(a), out[6 * n + i] = erff(v), out[7 * n + i] = log1pf(a);
    out[8 * n + i] = __expf(v), out[9 * n + i] = __fdividef(v, a), out[10 * n + i] = (float)log((double)a), out[11 * n + i] = __frcp_rz(a);
}

// 32 x 32 transposition through shared memory with rows of `Pad` words: 32 conflict, 33 do not.
template <int Pad> __device__ void transpose(const float* x, float* y) {
    __shared__ float tile[32 * Pad];
    for (int r = threadIdx.y; r < 32; r += blockDim.y) tile[r * Pad + threadIdx.x] = x[r * 32 + threadIdx.x];
    __syncthreads();
    for (int r = threadIdx.y; r < 32; r += blockDim.y) y[r * 32 + threadIdx.x] = tile[threadIdx.x * Pad + r];
}
extern "C" __global__ void transpose32(const float* x, float* y) { transpose<32>(x, y); }
extern "C" __global__ void transpose33(const float* x, float* y) { transpose<33>(x, y); }

// The last block to finish adds the parts: correct only with the fence.
__device__ unsigned int finished = 0;
template <bool Fence> __device__ void last_block(const float* x, float* parts, float* out) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = x[blockIdx.x];
        if (Fence) __threadfence();
        last = atomicInc(&finished, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float s = 0;
        for (int b = 0; b < gridDim.x; ++b) s += ((volatile float*)parts)[b];
        *out = s;
    }
}
extern "C" __global__ void last_block_fenced(const float* x, float* parts, float* out) { last_block<true>(x, parts, out); }
extern "C" __global__ void last_block_unfenced(const float* x, float* parts, float* out) { last_block<false>(x, parts, out); }

// A jump table, dynamic shared memory, integer division and 64-bit arithmetic.
extern "C" __global__ void assorted(const int* __restrict__ x, int64_t* out, int n) {
    extern __shared__ int64_t scratch[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = i < n ? x[i] : 0;
    int64_t r;
    switch (v & 7) {
    case 0: r = v / 7; break;
    case 1: r = v % 13; break;
    case 2: r = (int64_t)v * v * v; break;
    case 3: r = __clz(v) + 100 * __ffs(v); break;
    case 4: r = __brev(v) ^ __byte_perm(v, v * 3, 0x5140); break;
    case 5: r = (int64_t)((uint64_t)v * 0x9e3779b97f4a7c15ull >> 17); break;
    case 6: r = __mulhi(v, 1234567) + __funnelshift_l(v, 77, 5); break;
    default: r = (int64_t)v << (v & 31); break;
    }
    scratch[threadIdx.x ^ 1] = r;
    __syncthreads();
    if (i < n) out[i] = scratch[threadIdx.x];
}
