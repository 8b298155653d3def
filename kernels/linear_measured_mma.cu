// The twin of linear_measured.cu on tensor cores: the products of linear_mma.cu, to the bit, and the statistics of what is
// stored, which in bf16 is rounded.

#include "output_stats.cuh"
#include "mma.cuh"

using namespace mma;

struct MeasuredPairs : Output<gemm::InOrder> {
    Meter meter;

    __device__ explicit MeasuredPairs(const Output& out) : Output(out) {}

    __device__ void write(uint32_t m, uint32_t n, int part, float a, float b) {
        const float2 y = Output::write(m, n, part, a, b);
        meter.add(y.x);
        if (n + 1 < columns) meter.add(y.y);
    }
};

// A layer's weight, with its first column added, bias and result.
struct Layer {
    const float *weight, *bias;
    void* y;
};

template <class Math, class T>
__device__ void forward(const void* x, const Layer& layer, float4* parts, float* statistics, uint32_t* ticket, uint32_t rows,
                        uint32_t features, uint32_t outputs, uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight,
                        uint32_t narrow) {
    using S = Sources<Math>;
    const Rows<typename S::Activation> a{S::activation(x, features, narrow & FIRST), features, rows, features};
    const Rows<typename S::Weight> b{S::weight(layer.weight, vector_weight), stride, outputs, features};
    MeasuredPairs out({layer.y, (narrow & OUTPUT) != 0, outputs, rows, outputs, layer.bias, rows_per_bias, false, {}});
    mma::product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, 0, features);
    const uint32_t block = blockIdx.y * gridDim.x + blockIdx.x;
    if (blockIdx.z == 0) out.meter.measure(parts, statistics, ticket, block, gridDim.x * gridDim.y);
}

#define MEASURED(MATH, NAME, COLUMNS)                                                                                  \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS) linear_measured_##NAME##_##COLUMNS(           \
        const void* x, Layer first, Layer second, float4* parts, float* statistics, uint32_t* ticket, uint32_t rows,   \
        uint32_t features, uint32_t outputs, uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight,          \
        uint32_t narrow) {                                                                                             \
        forward<MATH, Tile##COLUMNS>(x, blockIdx.z == 0 ? first : second, parts, statistics, ticket, rows, features,   \
                                     outputs, stride, rows_per_bias, vector_weight, narrow);                           \
    }

MEASURED(Half, bf16, 16)
MEASURED(Half, bf16, 32)
MEASURED(Half, bf16, 64)
MEASURED(Half, bf16, 128)
MEASURED(Tf32, tf32, 16)
MEASURED(Tf32, tf32, 32)
MEASURED(Tf32, tf32, 64)
MEASURED(Tf32, tf32, 128)
