// A linear layer that measures its result (output_stats.cuh): y = x·W[:, columns]ᵀ + b, and the mean and the biased variance of all
// of y, which the conditional normalisation behind it needs. The product is that of linear.cu, to the bit.
//
// A second layer of the same sizes may be made of the same x, unmeasured: a residual's map beside a block's first layer. Grid
// (tiles of rows, tiles of columns, layers).
//
// FLOPs 2·rows·features·outputs + 3·rows·outputs; compulsory bytes as in linear.cu.

#include "output_stats.cuh"

using namespace gemm;

// A layer's weight, with its first column added, bias and result.
struct Layer {
    const float *weight, *bias;
    float* y;
};

template <class T>
__device__ void forward(const float* x, const Layer& layer, float4* parts, float* statistics, uint32_t* ticket, uint32_t rows,
                        uint32_t features, uint32_t outputs, uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight) {
    const bool vector = features % 4 == 0;
    const Rows a{{x, features, rows, features, vector}};
    const Rows b{{layer.weight, stride, outputs, features, vector && vector_weight}};
    Measured out({layer.y, outputs, rows, outputs, layer.bias, rows_per_bias, false, outputs % 4 == 0, {}});
    product<T>(a, b, out, blockIdx.x * T::M, blockIdx.y * T::N, 0, features);
    const uint32_t block = blockIdx.y * gridDim.x + blockIdx.x;
    if (blockIdx.z == 0) out.meter.measure(parts, statistics, ticket, block, gridDim.x * gridDim.y);
}

#define MEASURED(COLUMNS)                                                                                              \
    extern "C" __global__ void __launch_bounds__(Tile##COLUMNS::THREADS, Tile##COLUMNS::BLOCKS)                        \
        linear_measured_##COLUMNS(const float* x, Layer first, Layer second, float4* parts, float* statistics,         \
                                  uint32_t* ticket, uint32_t rows, uint32_t features, uint32_t outputs,                \
                                  uint32_t stride, uint32_t rows_per_bias, uint32_t vector_weight) {                   \
        forward<Tile##COLUMNS>(x, blockIdx.z == 0 ? first : second, parts, statistics, ticket, rows, features,         \
                               outputs, stride, rows_per_bias, vector_weight);                                         \
    }

MEASURED(16)
MEASURED(32)
MEASURED(64)
MEASURED(128)
