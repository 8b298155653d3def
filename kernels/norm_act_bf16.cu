// Normalisation's backward pass, stored in bf16.

#define BF16
#include "norm_act.cu"
