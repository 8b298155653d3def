// Occupancy decoders with the Padé units of OSS-Net, orders 5/4; and how a decoder is folded for a volume. The page is
// occupancy.cuh.

#include "occupancy.cuh"
#include "occupancy_fold.cuh"

using Pade54 = Pade<6, 4>;
OCCUPANCIES(pade54, Pade54(numerator, denominator, 0.0f))

// packed [depth rows, columns] = s·W[n, k], zeros where there is no k or n; offsets [columns] = s·(b − μ) + β with
// s = γ/√(σ² + ε); both without s if there is no normalisation. `offsets` and coefficients: null, or nothing, for all but
// one part of a layer. A block transposes 32 × 32 weights: grid (padded rows / 32, columns / 32).
extern "C" __global__ void __launch_bounds__(THREADS)
    occupancy_fold(const float* weight, uint32_t stride, uint32_t rows, uint32_t padded, uint32_t width, uint32_t columns,
                   const float* bias, Normalisation norm, Coefficients coefficients, float* packed, float* offsets) {
    __shared__ float block[WARP][WARP + 1];
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t k0 = blockIdx.x * WARP, n0 = blockIdx.y * WARP;
    const Scale scale(norm, width);
    for (uint32_t i = warp; i < WARP; i += THREADS / WARP) {
        const uint32_t k = k0 + lane, n = n0 + i;
        block[i][lane] = k < rows && n < width ? scale(n) * weight[(uint64_t)n * stride + k] : 0.0f;
    }
    __syncthreads();
    for (uint32_t i = warp; i < WARP && k0 + i < padded; i += THREADS / WARP)
        packed[(uint64_t)(k0 + i) * columns + n0 + lane] = block[lane][i];
    if (blockIdx.x > 0 || offsets == nullptr) return;
    if (threadIdx.x < WARP) offsets[n0 + threadIdx.x] = scale.offset(n0 + threadIdx.x, bias);
    coefficients.copy();
}
