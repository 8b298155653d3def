// Padé units of any order up to 8/8, alone or after normalisation: the page is norm_act.cuh. Those of OSS-Net, 5/4, have
// kernels of their own.

#include "norm_act.cuh"

using AnyPade = Pade<9, 8, true>;

KERNELS(pade, AnyPade)
