// Pooling, stored in bf16.

#define BF16
#include "pool.cu"
