// Padé units of any order, stored in bf16.

#define BF16
#include "pade.cu"
