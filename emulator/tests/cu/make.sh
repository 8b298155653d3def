#!/bin/sh
# Compiles the kernels of the emulator's tests to ../ptx. nvcc comes from $NVCC or the PATH; ../ptx/COMPILER names the
# version the committed files were made with.
set -e
cd "$(dirname "$0")"
for f in *.cu; do
    "${NVCC:-nvcc}" -O3 -arch=sm_80 -std=c++17 -ptx "$f" -o "../ptx/${f%.cu}.ptx"
done
"${NVCC:-nvcc}" --version | tail -2 > ../ptx/COMPILER
