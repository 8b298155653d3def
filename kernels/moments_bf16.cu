// Means and variances, stored in bf16.

#define BF16
#include "moments.cu"
