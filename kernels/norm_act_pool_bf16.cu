// Normalisation, activation and average pool, stored in bf16.

#define BF16
#include "norm_act_pool.cu"
