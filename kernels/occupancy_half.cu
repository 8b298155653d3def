// Occupancy decoders in bf16 with the Padé units of OSS-Net, orders 5/4; and how a decoder is folded for them. The page is
// occupancy_half.cuh.

#include "occupancy_fold.cuh"
#include "occupancy_half.cuh"

using Pade54 = Pade<6, 4>;

// One kernel a width and tile.
#define OCCUPANCY(COLUMNS, TILE)                                                                                       \
    extern "C" __global__ void __launch_bounds__(TILE / 64, 1)                                                         \
        occupancy_half_##COLUMNS##_##TILE(const float* x, occupancy::Decoder d, float* logits, uint32_t points) {      \
        occupancy::decode_half<COLUMNS, TILE, Pade54>(x, d, logits, points);                                           \
    }
#define OCCUPANCIES(COLUMNS) OCCUPANCY(COLUMNS, 16384) OCCUPANCY(COLUMNS, 32768)
OCCUPANCIES(64)
OCCUPANCIES(128)
OCCUPANCIES(256)
OCCUPANCIES(512)

// The same for these kernels as occupancy_fold for those of f32: packed halves of an aligned slice, in the order of the
// products' registers, and without the three coordinates' columns (from `coordinates` on; of the first two products), whose
// weights go to `exact` [3][columns] in f32. A thread makes two neighbouring halves.
extern "C" __global__ void __launch_bounds__(THREADS)
    occupancy_fold_half(const float* weight, uint32_t stride, uint32_t rows, uint32_t padded, uint32_t width,
                        uint32_t columns, const float* bias, Normalisation norm, Coefficients coefficients,
                        occupancy::Pair* packed, float* offsets, float* exact, uint32_t coordinates) {
    const Scale scale(norm, width);
    const auto value = [&](uint32_t n, uint32_t k) {
        return n < width && k < rows ? scale(n) * weight[(uint64_t)n * stride + k] : 0.0f;
    };
    for_elements(i, (uint64_t)padded * columns / 2) {
        // Pair i: of the lane and register i / 4 % 32, i % 4 of 16 inputs × 16 features.
        const uint32_t block = i / 128, lane = i / 4 % 32, pair = i % 4, across = columns / 16;
        const uint32_t n = block % across * 16 + pair / 2 * 8 + lane / 4, k = block / across * 16 + pair % 2 * 8 + lane % 4 * 2;
        float both[2];
        for (uint32_t j = 0; j < 2; j++)
            both[j] = exact != nullptr && k + j - coordinates < 3 ? 0.0f : value(n, k + j);
        packed[i] = __floats2bfloat162_rn(both[0], both[1]);
    }
    if (exact != nullptr && coordinates < rows)
        for_elements(i, 3 * columns) exact[i] = value(i % columns, coordinates + i / columns);
    if (offsets != nullptr) {
        for_elements(n, columns) offsets[n] = scale.offset(n, bias);
        coefficients.copy();
    }
}
