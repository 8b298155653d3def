// Dropout, stored in bf16.

#define BF16
#include "dropout.cu"
