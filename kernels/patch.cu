// Patch sampling: 7³ local patches, and mid-range ones pooled from 14³, of volumes at real-valued coordinates.
//
// Forward: a block a point, a thread a voxel of the patch; it reads all channels of its voxels at once (16 bytes where there
// are four) and writes one element to each channel's row, neighbouring threads neighbouring elements. At whole coordinates
// a row of seven voxels of four channels is 112 consecutive bytes. Compulsory bytes: each point's own voxels once and the
// patch, `4·C·(343 + 343)` a point (mid-range: 4·C·(8·343 + 343) more); 0 to 16 FLOPs a voxel.
//
// Coordinates' gradient: the same threads, three sums in f64 over the block in a fixed shape.
//
// Volume's gradient: a block owns 8³ voxels of one channel group and walks all points of its volume in order, adding what
// each contributes to the voxels that its threads own. Nothing is scattered, so there are no atomics, and each voxel's sum
// has the order of the points. It reads the coordinates once a block (12 bytes a point, from the L2 cache) and visits only
// the windows that overlap. Training never needs it (volumes are data); a faster one would sort points by block first.

#include "patch.cuh"

constexpr int PATCH_THREADS = 352; // of a block, in warps, for the 343 voxels of a patch: `PATCH_THREADS` in src/ops/patch_sample/cuda.rs

// patches [points, C or 2·C, 343]
template <int N>
__device__ void forward(const float* volumes, const float* coordinates, float* patches, const Volumes& v, uint64_t points) {
    const uint64_t size = (uint64_t)v.depth * v.height * v.width * v.channels;
    const uint32_t rows = v.mid_range ? 2 * v.channels : v.channels;
    for (uint64_t point = blockIdx.x; point < points; point += gridDim.x) {
        const Position p = position(coordinates + 3 * point, v);
        const float* volume = volumes + point / v.points_per_volume * size;
        float* patch = patches + point * rows * PATCH;
        for (int index = threadIdx.x; index < PATCH; index += blockDim.x) {
            for (uint32_t c = 0; c < v.channels; c += N) {
                const Values<N> local = local_value<N>(volume, v, p, index, c);
                for (int n = 0; n < N; n++) patch[(c + n) * PATCH + index] = local.at[n];
            }
            if (v.mid_range == NONE) continue;
            for (uint32_t c = 0; c < v.channels; c += N) {
                const Values<N> wide = mid_range_value<N>(volume, v, p, index, c);
                for (int n = 0; n < N; n++) patch[(v.channels + c + n) * PATCH + index] = wide.at[n];
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(PATCH_THREADS, 1) patch_sample_1(
    const float* volumes, const float* coordinates, float* patches, Volumes v, uint64_t points) {
    forward<1>(volumes, coordinates, patches, v, points);
}

extern "C" __global__ void __launch_bounds__(PATCH_THREADS, 1) patch_sample_4(
    const float* volumes, const float* coordinates, float* patches, Volumes v, uint64_t points) {
    forward<4>(volumes, coordinates, patches, v, points);
}

// Which of the eight values pooled into a mid-range voxel is the largest; of equals the first.
__device__ int largest_corner(const float* volume, const Volumes& v, const Position& p, const Cell& at, uint32_t c) {
    int best = 0;
    float largest = 0.0f;
    for (int corner = 0; corner < 8; corner++) {
        const int i = WIDE_FIRST + 2 * at.i + corner / 4, j = WIDE_FIRST + 2 * at.j + corner / 2 % 2;
        const float value = sample<1>(volume, v, p, i, j, WIDE_FIRST + 2 * at.k + corner % 2, c).at[0];
        if (corner == 0 || value > largest) largest = value, best = corner;
    }
    return best;
}

// ∂value/∂coordinate of the value (i, j, k) steps from the coordinate; from the right at whole coordinates.
__device__ void add_slope(
    double* sums, double g, const float* volume, const Volumes& v, const Position& p, int i, int j, int k, uint32_t c) {
    const int x = p.below[0] + i, y = p.below[1] + j, z = p.below[2] + k;
    float corner[8];
    for (int n = 0; n < 8; n++) corner[n] = voxel<1>(volume, v, x + n / 4, y + n / 2 % 2, z + n % 2, c).at[0];
    for (int axis = 0; axis < 3; axis++) {
        double slope = 0.0;
        for (int n = 0; n < 8; n++) {
            const int bit[3] = {n / 4, n / 2 % 2, n % 2};
            double weight = 1.0;
            for (int other = 0; other < 3; other++) {
                if (other == axis) weight *= bit[other] ? 1.0 : -1.0;
                else weight *= bit[other] ? (double)p.fraction[other] : 1.0 - (double)p.fraction[other];
            }
            // A neighbour of weight zero does not count, not even an infinite one.
            if (weight != 0.0) slope += weight * (double)corner[n];
        }
        sums[axis] += g * slope;
    }
}

// dc[point, axis] (+)= Σ gradient·∂patch/∂c. A block a point.
extern "C" __global__ void __launch_bounds__(PATCH_THREADS, 1) patch_coordinate_gradient(
    const float* volumes, const float* coordinates, const float* gradients, float* target, Volumes v, uint64_t points,
    uint32_t accumulate) {
    const uint64_t size = (uint64_t)v.depth * v.height * v.width * v.channels;
    const uint32_t rows = v.mid_range ? 2 * v.channels : v.channels;
    for (uint64_t point = blockIdx.x; point < points; point += gridDim.x) {
        const Position p = position(coordinates + 3 * point, v);
        const float* volume = volumes + point / v.points_per_volume * size;
        const float* gradient = gradients + point * rows * PATCH;
        double sums[3] = {0.0, 0.0, 0.0};
        for (int index = threadIdx.x; index < PATCH; index += blockDim.x) {
            const Cell at = cell(index);
            for (uint32_t c = 0; c < v.channels; c++) {
                add_slope(sums, gradient[c * PATCH + index], volume, v, p, LOCAL_FIRST + at.i, LOCAL_FIRST + at.j,
                    LOCAL_FIRST + at.k, c);
            }
            if (v.mid_range == NONE) continue;
            for (uint32_t c = 0; c < v.channels; c++) {
                const double g = gradient[(v.channels + c) * PATCH + index];
                const int only = v.mid_range == MAXIMUM ? largest_corner(volume, v, p, at, c) : -1;
                for (int corner = 0; corner < 8; corner++) {
                    if (only >= 0 && corner != only) continue;
                    add_slope(sums, only >= 0 ? g : 0.125 * g, volume, v, p, WIDE_FIRST + 2 * at.i + corner / 4,
                        WIDE_FIRST + 2 * at.j + corner / 2 % 2, WIDE_FIRST + 2 * at.k + corner % 2, c);
                }
            }
        }
        for (int axis = 0; axis < 3; axis++) {
            const double sum = block_sum(sums[axis]);
            if (threadIdx.x == 0) put(&target[3 * point + axis], (float)sum, accumulate);
        }
    }
}

constexpr int OWN = 8; // side of the voxels that a block owns

// What the window of `size` voxels from `first` on contributes to voxel (x, y, z), with the gradient of its entry (i, j, k)
// given by `entry`.
template <typename Entry>
__device__ float window_share(const Position& p, int first, int size, int x, int y, int z, Entry entry) {
    const int at[3] = {x - p.below[0] - first, y - p.below[1] - first, z - p.below[2] - first};
    float sum = 0.0f;
    // Voxel u is the lower neighbour of entry u, and the upper one of entry u − 1.
    for (int n = 0; n < 8; n++) {
        const int back[3] = {n / 4, n / 2 % 2, n % 2};
        float weight = 1.0f;
        bool inside = true;
        for (int axis = 0; axis < 3; axis++) {
            weight *= back[axis] ? p.fraction[axis] : 1.0f - p.fraction[axis];
            const int e = at[axis] - back[axis];
            inside = inside && e >= 0 && e < size;
        }
        if (weight != 0.0f && inside) sum = fmaf(weight, entry(at[0] - back[0], at[1] - back[1], at[2] - back[2]), sum);
    }
    return sum;
}

// True if a window of `size` voxels from `first` on, and one neighbour, meets the block's voxels.
__device__ bool overlaps(const Position& p, int first, int size, const int* corner) {
    for (int axis = 0; axis < 3; axis++) {
        const int start = p.below[axis] + first;
        if (start >= corner[axis] + OWN || start + size < corner[axis]) return false;
    }
    return true;
}

// dV (+)= Σ over the points. Grid: blocks of voxels, channels, volumes; a thread owns voxels of one channel.
extern "C" __global__ void __launch_bounds__(THREADS) patch_volume_gradient(
    const float* volumes, const float* coordinates, const float* gradients, float* target, Volumes v,
    uint32_t accumulate) {
    const uint64_t size = (uint64_t)v.depth * v.height * v.width * v.channels;
    const uint32_t rows = v.mid_range ? 2 * v.channels : v.channels;
    const uint32_t across = (v.width + OWN - 1) / OWN, down = (v.height + OWN - 1) / OWN;
    const int corner[3] = {(int)(blockIdx.x / across / down) * OWN, (int)(blockIdx.x / across % down) * OWN,
        (int)(blockIdx.x % across) * OWN};
    const uint32_t c = blockIdx.y;
    const float* volume = volumes + blockIdx.z * size;
    constexpr int EACH = OWN * OWN * OWN / THREADS;
    float sums[EACH] = {};
    const uint64_t first = (uint64_t)blockIdx.z * v.points_per_volume;
    for (uint64_t point = first; point < first + v.points_per_volume; point++) {
        const Position p = position(coordinates + 3 * point, v);
        const bool near = overlaps(p, LOCAL_FIRST, SIDE, corner);
        const bool wide = v.mid_range != NONE && overlaps(p, WIDE_FIRST, WIDE, corner);
        if (!near && !wide) continue;
        const float* local = gradients + (point * rows + c) * PATCH;
        const float* mid = local + (uint64_t)v.channels * PATCH;
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const int own = n * THREADS + threadIdx.x;
            const int x = corner[0] + own / (OWN * OWN), y = corner[1] + own / OWN % OWN, z = corner[2] + own % OWN;
            if (near) {
                sums[n] += window_share(p, LOCAL_FIRST, SIDE, x, y, z,
                    [&](int i, int j, int k) { return local[(i * SIDE + j) * SIDE + k]; });
            }
            if (wide) {
                sums[n] += window_share(p, WIDE_FIRST, WIDE, x, y, z, [&](int i, int j, int k) {
                    const Cell at = {i / 2, j / 2, k / 2};
                    const float g = mid[(at.i * SIDE + at.j) * SIDE + at.k];
                    if (v.mid_range == AVERAGE) return 0.125f * g;
                    return largest_corner(volume, v, p, at, c) == (i % 2 * 2 + j % 2) * 2 + k % 2 ? g : 0.0f;
                });
            }
        }
    }
#pragma unroll
    for (int n = 0; n < EACH; n++) {
        const int own = n * THREADS + threadIdx.x;
        const uint32_t x = corner[0] + own / (OWN * OWN), y = corner[1] + own / OWN % OWN, z = corner[2] + own % OWN;
        if (x < v.depth && y < v.height && z < v.width) {
            put(&target[blockIdx.z * size + (((uint64_t)x * v.height + y) * v.width + z) * v.channels + c], sums[n], accumulate);
        }
    }
}
