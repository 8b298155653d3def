// The lattice of hierarchical inference [X, Y, Z]: one byte of class and one of status a point (src/ops/lattice).
//
// Marking kernels are one thread a point and a few byte reads (neighbours come from the cache): 2 to 3 bytes a point must
// move. Handing out the due points is a compaction in the order of memory: counts a block of 1,024 points, exclusive sums
// (scan.cu), then each block writes its points behind its start. No step depends on the order in which blocks run.
// A faster one would keep classes and status as bits, 32 points a word.

#include "scan.cuh"

constexpr uint8_t EVALUATED = 1, DUE = 2;
constexpr int BLOCK_POINTS = 1024;                // points whose due ones are counted together
constexpr int EACH = BLOCK_POINTS / THREADS;      // of them a thread's

struct Shape {
    uint32_t x, y, z;
};

__device__ inline uint64_t size(const Shape& s) { return (uint64_t)s.x * s.y * s.z; }

__device__ inline uint64_t index(const Shape& s, uint32_t x, uint32_t y, uint32_t z) {
    return ((uint64_t)x * s.y + y) * s.z + z;
}

extern "C" __global__ void __launch_bounds__(THREADS) lattice_mark_all(uint8_t* status, uint64_t n) {
    for_elements(i, n) {
        if (!(status[i] & EVALUATED)) status[i] |= DUE;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) lattice_mark_above(
    const float* values, float threshold, uint8_t* status, uint64_t n) {
    for_elements(i, n) {
        if (!(status[i] & EVALUATED) && values[i] > threshold) status[i] |= DUE;
    }
}

// Background near something is due, evaluated or not.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_mark_background(
    const uint8_t* near, const uint8_t* classes, uint8_t* status, uint64_t n) {
    for_elements(i, n) {
        if (near[i] != 0 && classes[i] == 0) status[i] |= DUE;
    }
}

// True if the points of the box do not all have one class.
__device__ bool mixed(
    const uint8_t* classes, const Shape& s, uint32_t x0, uint32_t x1, uint32_t y0, uint32_t y1, uint32_t z0, uint32_t z1) {
    const uint8_t first = classes[index(s, x0, y0, z0)];
    for (uint32_t x = x0; x < x1; x++)
        for (uint32_t y = y0; y < y1; y++)
            for (uint32_t z = z0; z < z1; z++)
                if (classes[index(s, x, y, z)] != first) return true;
    return false;
}

// Unevaluated points whose 3³ neighbours differ are due.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_mark_mixed_neighbours(
    const uint8_t* classes, uint8_t* status, Shape s) {
    for_elements(i, size(s)) {
        if (status[i] & EVALUATED) continue;
        const uint32_t x = i / s.z / s.y, y = i / s.z % s.y, z = i % s.z;
        if (mixed(classes, s, x ? x - 1 : 0, min(x + 2, s.x), y ? y - 1 : 0, min(y + 2, s.y), z ? z - 1 : 0, min(z + 2, s.z))) {
            status[i] |= DUE;
        }
    }
}

// out = 1 for each cell (`side` points an axis and the next one) whose points do not all have one class.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_mixed_cells(
    const uint8_t* classes, uint8_t* out, Shape s, Shape cells, uint32_t side) {
    for_elements(i, size(cells)) {
        const uint32_t x = i / cells.z / cells.y * side, y = i / cells.z % cells.y * side, z = i % cells.z * side;
        out[i] = mixed(classes, s, x, min(x + side + 1, s.x), y, min(y + side + 1, s.y), z, min(z + side + 1, s.z));
    }
}

// The cells along an axis that hold the point `at`: two where cells meet.
__device__ inline void cells_of(uint32_t at, uint32_t side, uint32_t cells, uint32_t* first, uint32_t* last) {
    *last = min(at / side, cells - 1);
    *first = at % side == 0 ? (at / side ? at / side - 1 : 0) : *last;
    *first = min(*first, *last);
}

// Unevaluated points of marked cells are due.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_mark_cells(
    const uint8_t* marked, uint8_t* status, Shape s, Shape cells, uint32_t side) {
    for_elements(i, size(s)) {
        if (status[i] & EVALUATED) continue;
        uint32_t x0, x1, y0, y1, z0, z1;
        cells_of(i / s.z / s.y, side, cells.x, &x0, &x1);
        cells_of(i / s.z % s.y, side, cells.y, &y0, &y1);
        cells_of(i % s.z, side, cells.z, &z0, &z1);
        bool any = false;
        for (uint32_t x = x0; x <= x1; x++)
            for (uint32_t y = y0; y <= y1; y++)
                for (uint32_t z = z0; z <= z1; z++) any = any || marked[index(cells, x, y, z)] != 0;
        if (any) status[i] |= DUE;
    }
}

// counts[block] = due points of 1,024 in a row. A block a block.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_count_due(const uint8_t* status, uint32_t* counts, uint64_t n) {
    uint32_t count = 0;
    for (int k = 0; k < EACH; k++) {
        const uint64_t i = (uint64_t)blockIdx.x * BLOCK_POINTS + k * THREADS + threadIdx.x;
        if (i < n) count += (status[i] & DUE) != 0;
    }
    count = block_sum(count);
    if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

// points [due, 3]: indices of the due points among `n` from point `first` on, in order; starts[block] as scan.cu leaves it.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_due(
    const uint8_t* status, const uint32_t* starts, float* points, Shape s, uint64_t first, uint64_t n) {
    const uint64_t own = (uint64_t)blockIdx.x * BLOCK_POINTS + threadIdx.x * EACH;
    uint32_t count = 0, total;
    for (int k = 0; k < EACH; k++) count += own + k < n && (status[own + k] & DUE) != 0;
    uint64_t out = starts[blockIdx.x] + block_exclusive(count, &total);
    for (int k = 0; k < EACH; k++) {
        if (own + k >= n || !(status[own + k] & DUE)) continue;
        const uint64_t at = first + own + k;
        points[3 * out] = (float)(at / s.z / s.y);
        points[3 * out + 1] = (float)(at / s.z % s.y);
        points[3 * out + 2] = (float)(at % s.z);
        out++;
    }
}

// The points' classes are entered; they are evaluated and no longer due. Points occur once.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_write(
    const float* points, const uint8_t* answers, uint8_t* classes, uint8_t* status, Shape s, uint64_t n) {
    for_elements(i, n) {
        const uint64_t at = index(s, (uint32_t)points[3 * i], (uint32_t)points[3 * i + 1], (uint32_t)points[3 * i + 2]);
        classes[at] = answers[i];
        status[at] = EVALUATED;
    }
}

// The lattice `factor` times as fine: own points keep class and status, those between take the class of the nearest (or
// background) and count as not evaluated.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_refine(
    const uint8_t* classes, const uint8_t* status, uint8_t* fine_classes, uint8_t* fine_status, Shape s, Shape fine,
    uint32_t factor, uint32_t fill) {
    for_elements(i, size(fine)) {
        const uint32_t x = i / fine.z / fine.y, y = i / fine.z % fine.y, z = i % fine.z;
        const bool own = x % factor == 0 && y % factor == 0 && z % factor == 0;
        const uint64_t from = index(s, min((x + factor / 2) / factor, s.x - 1), min((y + factor / 2) / factor, s.y - 1),
            min((z + factor / 2) / factor, s.z - 1));
        fine_classes[i] = own || fill ? classes[from] : 0;
        fine_status[i] = own ? status[from] & EVALUATED : 0;
    }
}

// The class of each row of logits [n, outputs]: with one output 1 if its sigmoid exceeds the threshold, else the largest.
extern "C" __global__ void __launch_bounds__(THREADS) lattice_classify(
    const float* logits, uint32_t outputs, float threshold, uint8_t* classes, uint64_t n) {
    for_elements(i, n) {
        const float* row = logits + i * outputs;
        if (outputs == 1) {
            classes[i] = 1.0f / (1.0f + expf(-row[0])) > threshold;
            continue;
        }
        uint32_t best = 0;
        for (uint32_t c = 1; c < outputs; c++) {
            if (row[c] > row[best]) best = c;
        }
        classes[i] = best;
    }
}
