// One planted mistake a kernel: every checker must find its own, and name the instruction and the lane.

// No barrier between writing and reading another warp's element.
extern "C" __global__ void missing_barrier(float* out) {
    __shared__ float tile[64];
    tile[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = tile[63 - threadIdx.x];
}

// The same, within a warp: lanes are not in step by law.
extern "C" __global__ void missing_syncwarp(float* out) {
    __shared__ float tile[32];
    tile[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = tile[31 - threadIdx.x];
}

// i <= n.
extern "C" __global__ void off_by_one(float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) out[i] = 1.0f;
}

// Every block writes its number to the same word.
extern "C" __global__ void block_race(int* out) {
    if (threadIdx.x == 0) out[0] = blockIdx.x;
}

// Reads what the neighbouring block writes.
extern "C" __global__ void block_read_race(const volatile float* in, float* out) {
    ((volatile float*)in)[blockIdx.x] = 2.0f;
    out[blockIdx.x] = in[(blockIdx.x + 1) % gridDim.x];
}

// Reads shared memory nobody wrote.
extern "C" __global__ void uninitialised_shared(float* out) {
    __shared__ float tile[64];
    if (threadIdx.x != 5) tile[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

// Copies: the mistake is the caller's, who never wrote `in`.
extern "C" __global__ void copy(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x]; }

// A float at an odd address.
extern "C" __global__ void misaligned(char* out) { *(float*)(out + 4 * threadIdx.x + (threadIdx.x == 9)) = 1.0f; }

// Half of the warp waits at a barrier the other half does not see.
extern "C" __global__ void divergent_barrier(float* out) {
    __shared__ float tile[32];
    tile[threadIdx.x] = 1.0f;
    if (threadIdx.x % 2 == 0) __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

// A whole warp leaves before the barrier.
extern "C" __global__ void early_exit(float* out, int n) {
    __shared__ float tile[64];
    if (threadIdx.x >= n) return;
    tile[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

// Reads the target of a copy without waiting for it.
extern "C" __global__ void unawaited_copy(const float* in, float* out) {
    __shared__ float tile[32];
    unsigned dst = (unsigned)__cvta_generic_to_shared(&tile[threadIdx.x]);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(dst), "l"(in + threadIdx.x) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
    out[threadIdx.x] = tile[threadIdx.x];
}

// Waits for ever.
extern "C" __global__ void hang(volatile int* flag) {
    while (*flag == 0) {
    }
}

// Gives up.
extern "C" __global__ void gives_up(int* out) {
    if (*out == 3) __trap();
    *out = 4;
}

// Correct: for launches with wrong arguments and for leaks.
extern "C" __global__ void __launch_bounds__(256) innocent(float* out, int n) {
    extern __shared__ float dynamic[];
    dynamic[threadIdx.x] = 2.0f;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = dynamic[threadIdx.x];
}
