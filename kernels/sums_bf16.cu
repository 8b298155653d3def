// Sums over splits and rows, stored in bf16.

#define BF16
#include "sums.cu"
