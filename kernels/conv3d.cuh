// Where the operands of a convolution lie: voxels of channels-last volumes, shifted by the taps of a kernel.
#pragma once

#include "gemm.cuh"

// Sizes (`Conv` of src/ops/conv3d/cuda.rs). The source is read and the target written; for the adjoint (data gradient,
// transposed convolution) they have changed places, but stride and padding are those of the convolution.
struct Conv {
    uint32_t batch;
    uint32_t source[3], target[3];
    uint32_t channels; // of the source
    uint32_t columns;  // channels of the target
    uint32_t taps[3], stride[3], padding[3];
    uint32_t adjoint;
};

// Exact division by an invariant of numbers below 2³¹ (Granlund and Montgomery 1994): two instructions and a shift. The
// host makes those that are used in loops (they then lie in constant memory), the device the others.
struct Divisor {
    uint32_t divisor, magic, shift;

    Divisor() = default;
    __device__ explicit Divisor(uint32_t d) : divisor(max(d, 1u)) {
        shift = divisor > 1 ? 32 - __clz(divisor - 1) : 0;
        magic = (uint32_t)((((1ull << shift) - divisor) << 32) / divisor + 1);
    }
    __device__ uint32_t quotient(uint32_t n) const { return (__umulhi(n, magic) + n) >> shift; }
    // n becomes its remainder; the quotient is returned.
    __device__ uint32_t split(uint32_t& n) const {
        const uint32_t q = quotient(n);
        n -= q * divisor;
        return q;
    }
};

// A convolution as a correlation along each axis: target voxel `first + spread·j` reads the source at
// `base + step·j + direction·tap` for each of `taps`.
//
// Forward: all target voxels are alike. Adjoint: target voxels of one remainder modulo the stride are, and use every
// `stride`-th tap; for each remainder of the three axes (`phase`) there is a correlation of its own, without a wasted product.
struct View {
    uint32_t rows[3], first[3], taps[3];
    int base[3], step[3];
    int direction;
    uint32_t spread[3];
    // Taps of the phases before this one in the packed weights.
    uint32_t before;

    __device__ View(const Conv& c, uint32_t phase) {
        direction = c.adjoint ? -1 : 1;
        uint32_t lower[3], phases = phase;
        for (int a = 2; a >= 0; a--) {
            const uint32_t stride = c.stride[a], kernel = c.taps[a], target = c.target[a];
            if (!c.adjoint) {
                rows[a] = target, first[a] = 0, spread[a] = 1, taps[a] = kernel, lower[a] = 0;
                base[a] = -(int)c.padding[a], step[a] = stride;
                continue;
            }
            const uint32_t alike = min(stride, target);
            first[a] = phases % alike;
            phases /= alike;
            const uint32_t tap = (first[a] + c.padding[a]) % stride; // the first that reaches a whole source voxel
            rows[a] = (target - first[a] + stride - 1) / stride;
            spread[a] = stride;
            taps[a] = tap < kernel ? (kernel - tap + stride - 1) / stride : 0;
            lower[a] = kernel / stride * tap + min(kernel % stride, tap);
            base[a] = (first[a] + c.padding[a] - tap) / stride, step[a] = 1;
        }
        before = lower[0] * c.taps[1] * c.taps[2] + taps[0] * (lower[1] * c.taps[2] + taps[1] * lower[2]);
    }
};

// Place of tap `t` of the kernel in the packed weights: by phases for the adjoint, else as it is.
__device__ inline uint32_t packed_place(const Conv& c, uint32_t t) {
    if (!c.adjoint) return t;
    const uint32_t at[3] = {t / (c.taps[1] * c.taps[2]), t / c.taps[2] % c.taps[1], t % c.taps[2]};
    uint32_t lower[3], count[3], u[3];
    for (int a = 0; a < 3; a++) {
        const uint32_t stride = c.stride[a], kernel = c.taps[a], tap = at[a] % stride;
        lower[a] = kernel / stride * tap + min(kernel % stride, tap);
        count[a] = (kernel - tap + stride - 1) / stride;
        u[a] = at[a] / stride;
    }
    const uint32_t before = lower[0] * c.taps[1] * c.taps[2] + count[0] * (lower[1] * c.taps[2] + count[1] * lower[2]);
    return before + (u[0] * count[1] + u[1]) * count[2] + u[2];
}

// Which voxel a number among those of a batch is.
struct Voxels {
    Divisor volume, plane, line;
};

// A target voxel: where its taps begin in the source, and the first voxel of its volume.
struct Spot {
    int at[3];
    uint32_t volume;
};

// Four (tap, channel) pairs, 6 bits an axis and 14 for the channel; the first alone where channels come in fours.
struct Taps {
    uint32_t packed[4];
};

// The matrix [target voxels, taps · channels] that a convolution is a product with, without ever existing.
struct Gather {
    static constexpr uint32_t NONE = 0xffffffffu;
    static constexpr int FAR = -(1 << 30);

    const float* data;
    uint32_t size[3], volume, channels;
    int base[3], step[3], direction;
    uint32_t spots, pairs; // rows and columns of the matrix
    Voxels voxels;
    Divisor by_kernel_plane, by_kernel_line, by_channels;
    bool vector;

    __device__ Gather(const Conv& c, const View& v, const Voxels& voxels, const float* data)
        : data(data), volume(c.source[0] * c.source[1] * c.source[2]), channels(c.channels), direction(v.direction),
          spots(c.batch * v.rows[0] * v.rows[1] * v.rows[2]), pairs(v.taps[0] * v.taps[1] * v.taps[2] * c.channels),
          voxels(voxels), by_kernel_plane(v.taps[1] * v.taps[2]), by_kernel_line(v.taps[2]), by_channels(c.channels),
          vector(c.channels % 4 == 0) {
        for (int a = 0; a < 3; a++) size[a] = c.source[a], base[a] = v.base[a], step[a] = v.step[a];
    }

    __device__ Spot spot(uint32_t row) const {
        if (row >= spots) return {{FAR, FAR, FAR}, 0};
        const uint32_t item = voxels.volume.split(row), d = voxels.plane.split(row), h = voxels.line.split(row);
        return {{base[0] + step[0] * (int)d, base[1] + step[1] * (int)h, base[2] + step[2] * (int)row}, item * volume};
    }

    __device__ uint32_t pack(uint32_t pair) const {
        if (pair >= pairs) return NONE;
        uint32_t tap = by_channels.split(pair);
        const uint32_t d = by_kernel_plane.split(tap), h = by_kernel_line.split(tap);
        return d << 26 | h << 20 | tap << 14 | pair;
    }

    __device__ Taps taps(uint32_t pair) const {
        if (vector) return {{pack(pair), NONE, NONE, NONE}};
        return {{pack(pair), pack(pair + 1), pack(pair + 2), pack(pair + 3)}};
    }

    // Place of one element; negative outside.
    __device__ int64_t offset(const Spot& spot, uint32_t packed) const {
        const uint32_t d = spot.at[0] + direction * (int)(packed >> 26);
        const uint32_t h = spot.at[1] + direction * (int)(packed >> 20 & 63);
        const uint32_t w = spot.at[2] + direction * (int)(packed >> 14 & 63);
        if (packed == NONE || d >= size[0] || h >= size[1] || w >= size[2]) return -1;
        return (uint64_t)(spot.volume + (d * size[1] + h) * size[2] + w) * channels + (packed & 0x3fff);
    }

    // Its address; null outside.
    __device__ const float* element(const Spot& spot, uint32_t packed) const {
        const int64_t at = offset(spot, packed);
        return at < 0 ? nullptr : data + at;
    }

    __device__ float4 fetch(const Spot& spot, const Taps& taps) const {
        if (vector) {
            const float* at = element(spot, taps.packed[0]);
            return at == nullptr ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : __ldg(reinterpret_cast<const float4*>(at));
        }
        float value[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* at = element(spot, taps.packed[i]);
            value[i] = at == nullptr ? 0.0f : __ldg(at);
        }
        return make_float4(value[0], value[1], value[2], value[3]);
    }
    template <class Place> __device__ static float4 finish(const float4& loaded, const Place&, uint32_t) { return loaded; }
};

// The matrix as the left operand of `correlate`: k runs over (tap, channel).
struct GatherRows : Gather {
    static constexpr bool ALONG_K = true;
    using Place = Spot;
    using Cursor = Taps;
    using Gather::Gather;
    __device__ Place place(uint32_t m) const { return spot(m); }
    __device__ Cursor cursor(uint32_t k) const { return taps(k); }
    __device__ float4 load(const Place& place, const Cursor& cursor) const { return fetch(place, cursor); }
};

// Its transpose, for the weight gradient: k runs over target voxels.
struct GatherColumns : Gather {
    static constexpr bool ALONG_K = false;
    using Place = Taps;
    using Cursor = Spot;
    using Gather::Gather;
    __device__ Place place(uint32_t m) const { return taps(m); }
    __device__ Cursor cursor(uint32_t k) const { return spot(k); }
    __device__ float4 load(const Place& place, const Cursor& cursor) const { return fetch(cursor, place); }
};

// Where the target voxels of a view lie.
struct ViewOrder {
    uint32_t target[3], first[3], spread[3];
    Voxels voxels;
    bool plain;

    __device__ ViewOrder(const Conv& c, const View& v, const Voxels& voxels) : voxels(voxels), plain(!c.adjoint) {
        for (int a = 0; a < 3; a++) target[a] = c.target[a], first[a] = v.first[a], spread[a] = v.spread[a];
    }

    __device__ uint64_t operator()(uint32_t m) const {
        if (plain) return m;
        const uint32_t item = voxels.volume.split(m), d = voxels.plane.split(m), h = voxels.line.split(m);
        const uint32_t plane = item * target[0] + first[0] + spread[0] * d;
        return (uint64_t)(plane * target[1] + first[1] + spread[1] * h) * target[2] + first[2] + spread[2] * m;
    }
};
