// The operands of convolutions on tensor cores: those of conv3d.cuh in the chunks of mma.cuh.
#pragma once

#include "conv3d.cuh"
#include "mma.cuh"

namespace mma {

// The matrix [target voxels, taps · channels] of conv3d.cuh, for chunks of a source. A key names the chunk of (tap, channel)
// pairs: packed if it lies in one voxel, else the first pair's number.
template <class Source> struct Pairs : Gather {
    Source source;

    __device__ Pairs(const Conv& c, const View& v, const ::Voxels& voxels, const Source& source)
        : Gather(c, v, voxels, nullptr), source(source) {}
    __device__ uint32_t key(uint32_t pair) const { return source.vector ? pack(pair) : pair; }
    __device__ mma::Spot chunk(const ::Spot& voxel, uint32_t key) const {
        const int64_t at = offset(voxel, key);
        return {(uint64_t)at, at < 0 ? 0 : Source::Math::CHUNK};
    }
    __device__ typename Source::Raw elements(const ::Spot& voxel, uint32_t key) const {
        if (source.vector) return source.load(chunk(voxel, key));
        return source.collect([&](int i) { return offset(voxel, pack(key + i)); });
    }
};

// As the left operand: k runs over the pairs.
template <class Source> struct PairsAlong : Pairs<Source> {
    static constexpr bool ALONG_K = true;
    using Place = ::Spot;
    using Cursor = uint32_t;
    using Pairs<Source>::Pairs;
    __device__ Place place(uint32_t row) const { return Gather::spot(row); }
    __device__ Cursor cursor(uint32_t k) const { return this->key(k); }
    __device__ mma::Spot spot(const Place& voxel, Cursor key) const { return this->chunk(voxel, key); }
    __device__ typename Source::Raw load(const Place& voxel, Cursor key) const { return this->elements(voxel, key); }
};

// Its transpose, for the weight gradient: k runs over target voxels.
template <class Source> struct PairsAcross : Pairs<Source> {
    static constexpr bool ALONG_K = false;
    using Place = uint32_t;
    using Cursor = ::Spot;
    using Pairs<Source>::Pairs;
    __device__ Place place(uint32_t pair) const { return this->key(pair); }
    __device__ Cursor cursor(uint32_t k) const { return Gather::spot(k); }
    __device__ mma::Spot spot(Place key, const Cursor& voxel) const { return this->chunk(voxel, key); }
    __device__ typename Source::Raw load(Place key, const Cursor& voxel) const { return this->elements(voxel, key); }
};

} // namespace mma
