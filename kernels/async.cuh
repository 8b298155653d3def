// Copies from global to shared memory that go on while threads compute (cp.async, compute capability 8.0).
#pragma once

#include "common.cuh"

// 16 bytes from global to shared memory, past the first-level cache; both addresses multiples of 16.
__device__ inline void copy_async(void* shared, const void* global) {
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

// Ends a group of copies of this thread.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `PENDING` groups of this thread are on their way. A barrier makes them visible to others.
template <int PENDING> __device__ inline void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
