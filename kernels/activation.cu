// The usual activations, alone or after normalisation: the page is norm_act.cuh.

#include "norm_act.cuh"

KERNELS(identity, Identity)
KERNELS(leaky, Leaky<0>)
KERNELS(prelu, Leaky<1>)
KERNELS(selu, Selu)
KERNELS(swish, Swish)
KERNELS(softplus, Softplus)
KERNELS(tanh, Tanh)
KERNELS(sigmoid, Sigmoid)
