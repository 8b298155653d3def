// Padé units of the other orders, stored in bf16.

#define BF16
#include "pade.cu"
