// The usual activations, stored in bf16.

#define BF16
#include "activation.cu"
