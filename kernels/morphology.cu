// Binary morphology on volumes of bytes [X, Y, Z]: the border of a label, and dilation by a cube, one axis a launch.
//
// One thread a voxel, neighbouring threads neighbouring voxels of the last axis; a request is one 32-byte sector. The border
// reads 27 voxels (from the cache after the first), a dilation `2·radius + 1` along one axis; all arithmetic is on small
// integers, so results equal the CPU's exactly. Bytes that must move: 2 a voxel and launch. A faster dilation would keep a
// running count down its axis, as the CPU does, or pack voxels to bits.

#include "common.cuh"

struct Shape {
    uint32_t x, y, z;
};

// edge = 1 where the Sobel gradient of `label > 0` is not zero; beyond an end the end is repeated.
extern "C" __global__ void __launch_bounds__(THREADS) sobel_edges(const uint8_t* label, uint8_t* edge, Shape shape, uint64_t n) {
    for_elements(i, n) {
        const int at[3] = {(int)(i / shape.z / shape.y), (int)(i / shape.z % shape.y), (int)(i % shape.z)};
        int gradient[3] = {0, 0, 0};
        for (int dx = -1; dx <= 1; dx++) {
            for (int dy = -1; dy <= 1; dy++) {
                for (int dz = -1; dz <= 1; dz++) {
                    const int x = min(max(at[0] + dx, 0), (int)shape.x - 1), y = min(max(at[1] + dy, 0), (int)shape.y - 1);
                    const int z = min(max(at[2] + dz, 0), (int)shape.z - 1);
                    if (label[((uint64_t)x * shape.y + y) * shape.z + z] == 0) continue;
                    // The derivative along its own axis, [1, 2, 1] along the others.
                    const int sx = 2 - (dx & 1), sy = 2 - (dy & 1), sz = 2 - (dz & 1);
                    gradient[0] += dx * sy * sz;
                    gradient[1] += sx * dy * sz;
                    gradient[2] += sx * sy * dz;
                }
            }
        }
        edge[i] = gradient[0] != 0 || gradient[1] != 0 || gradient[2] != 0;
    }
}

// to = 1 where any voxel within `radius` along one axis is not zero. The axis has `length` voxels, `stride` apart.
extern "C" __global__ void __launch_bounds__(THREADS) dilate_axis(
    const uint8_t* from, uint8_t* to, uint32_t length, uint64_t stride, uint32_t radius, uint64_t n) {
    for_elements(i, n) {
        const uint32_t at = i / stride % length;
        const uint32_t first = at < radius ? 0 : at - radius, last = min(at + radius, length - 1);
        const uint8_t* line = from + (i - at * stride);
        bool any = false;
        for (uint32_t k = first; k <= last && !any; k++) any = line[k * stride] != 0;
        to[i] = any;
    }
}

// to = 1 where from is not zero.
extern "C" __global__ void __launch_bounds__(THREADS) nonzero(const uint8_t* from, uint8_t* to, uint64_t n) {
    for_elements(i, n) to[i] = from[i] != 0;
}
