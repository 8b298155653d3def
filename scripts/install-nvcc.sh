#!/usr/bin/env bash
# Installs the pinned CUDA compiler into .venv, from PyPI's wheels: no GPU, driver or toolkit is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
    nvidia-cuda-nvdisasm==13.2.78 # scripts/sass.py; there is no 13.0 on PyPI
)
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${packages[@]}"
find .venv -path '*/bin/nvcc' -print -quit
