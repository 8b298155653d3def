// Sums of tensors, stored in bf16.

#define BF16
#include "elementwise.cu"
