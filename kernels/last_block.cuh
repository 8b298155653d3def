// Sums over blocks within one launch: the last block to arrive adds up what the others left.
//
// Each block writes its part and takes a number from a ticket, an integer counter that only says who comes last; that block
// then adds the parts in their own order, so the result does not depend on it. The counters belong to the device
// (`TICKETS` in src/device/cuda/mod.rs), are zero between kernels, and go back to zero by themselves: `atomicInc` wraps.
//
//   write the part; if (last_to_arrive(ticket, parts)) { read all parts with `fresh`; write the sum }
//
// The fence before the atomic makes the part visible to whoever sees the number, the one behind it keeps the reads from
// running ahead; `fresh` reads past the first-level cache, which other multiprocessors do not keep up to date.
#pragma once

#include "common.cuh"

// True in all threads of the last of `count` blocks to get here. All threads must take part.
__device__ inline bool last_to_arrive(uint32_t* ticket, uint32_t count) {
    __shared__ bool last;
    __threadfence();
    __syncthreads(); // every thread's part is written
    if (threadIdx.x == 0) {
        // What the barrier brought to this thread goes before its number: the PTX memory model asks for a fence here.
        __threadfence();
        last = atomicInc(ticket, count - 1) == count - 1;
    }
    __syncthreads();
    if (last) __threadfence();
    return last;
}

// What another block of the same launch wrote.
template <class T> __device__ inline T fresh(const T* p) { return __ldcg(p); }
