// Dropout by the counter-based generator of src/rng.rs (Philox4x32-10): the same bits as on the CPU.
//
// A thread makes one block of four words and handles the four elements they belong to: 8 bytes an element (4 in bf16), about 25 integer
// operations each for the generator, which hides behind the memory. Nothing is stored for the backward pass.
//
// A faster one would be part of the kernel that makes x.

#include "vec4.cuh"

// Ten rounds on the counter (block, stream) under the key `seed`.
__device__ inline uint4 philox(uint64_t seed, uint64_t block, uint64_t stream) {
    uint32_t c0 = (uint32_t)block, c1 = block >> 32, c2 = (uint32_t)stream, c3 = stream >> 32;
    uint32_t k0 = (uint32_t)seed, k1 = seed >> 32;
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}

// x [n] → y [n] (may be x), elements `start`, … of what the seed is for: 0 where the element's word is below `threshold`, else
// x·scale. Where `start` is no multiple of four, a thread's words lie in two blocks.
extern "C" __global__ void __launch_bounds__(THREADS)
    KERNEL(dropout)(const real* x, real* y, uint64_t n, uint64_t start, uint64_t seed, uint64_t stream, uint64_t threshold, float scale) {
    for_each_four(n, [&](uint64_t at, uint32_t count) {
        Four v = load_four(x + at, count);
        const uint64_t first = start + at;
        const int shift = first % 4;
        const uint4 a = philox(seed, first / 4, stream);
        const uint4 b = shift ? philox(seed, first / 4 + 1, stream) : a;
        const uint32_t word[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t own = word[k]; // chosen without an address, so that the words stay in registers
#pragma unroll
            for (int s = 1; s < 4; s++) own = shift == s ? word[k + s] : own;
            v.v[k] = own < threshold ? 0.0f : v.v[k] * scale;
        }
        store_four(y + at, v, count);
    });
}
