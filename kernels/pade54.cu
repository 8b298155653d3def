// Padé units of orders 5/4, those of OSS-Net, alone or after normalisation: the page is norm_act.cuh.

#include "norm_act.cuh"

using Pade54 = Pade<6, 4>;
KERNELS(pade54, Pade54)
