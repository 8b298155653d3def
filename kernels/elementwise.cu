// Sums of tensors, and what the engine does to buffers between ops.
//
// Every kernel is a grid-stride loop, one element a thread and turn: bound by memory, 4 to 12 bytes an element. A faster one
// would load four elements at once where the length allows.

#include "common.cuh"

// a ← a + b. 12 bytes and 1 FLOP an element.
extern "C" __global__ void add_in_place(float* a, const float* b, uint64_t n) {
    for_elements(i, n) a[i] += b[i];
}

// y ← a + b. 12 bytes and 1 FLOP an element.
extern "C" __global__ void add(const float* a, const float* b, float* y, uint64_t n) {
    for_elements(i, n) y[i] = a[i] + b[i];
}
