// Padé units of the other orders, alone or after normalisation: the page is norm_act.cuh.

#include "norm_act.cuh"

using Pade33 = Pade<4, 3>;
using Pade44 = Pade<5, 4>;
using Pade55 = Pade<6, 5>;
using Pade66 = Pade<7, 6>;
using Pade77 = Pade<8, 7>;
using Pade88 = Pade<9, 8>;

KERNELS(pade33, Pade33)
KERNELS(pade44, Pade44)
KERNELS(pade55, Pade55)
KERNELS(pade66, Pade66)
KERNELS(pade77, Pade77)
KERNELS(pade88, Pade88)
