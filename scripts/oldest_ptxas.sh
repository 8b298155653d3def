#!/usr/bin/env bash
# Assembles the committed PTX with the ptxas of CUDA 12.1, whose drivers (r530) are the oldest that the engine supports: what it
# takes, they compile.
#   scripts/oldest_ptxas.sh [NAME ...]   these kernel files (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."

version=12.1.105
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "nvidia-cuda-nvcc-cu12==$version"
ptxas=$(find -L .venv -path '*/nvidia/cuda_nvcc/bin/ptxas' -print -quit)
[[ $("$ptxas" --version) == *"V$version"* ]] || { echo "$ptxas is not $version" >&2; exit 1; }

files=()
for name in "$@"; do files+=("kernels/ptx/$name.ptx"); done
[ ${#files[@]} -gt 0 ] || files=(kernels/ptx/*.ptx)
# One architecture is enough for the language; the others are assembled in scripts/kernel_resources.py.
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -I{} "$ptxas" -arch=sm_80 {} -o /dev/null
echo "ptxas $version, CUDA 12.1, drivers from r530 on: takes all ${#files[@]} files"
