// Padé units of order 5/4, stored in bf16.

#define BF16
#include "pade54.cu"
