#!/usr/bin/env bash
# Writes kernels/counts.tsv, steps.tsv, launches.tsv and first.tsv anew: what the kernels do, as the emulator counts it. Needs no GPU.
#   scripts/counts.sh            write them (after scripts/kernels.sh and scripts/kernel_resources.py)
#   scripts/counts.sh --check    fail if they would change
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" = --check ] || export OSSNET_WRITE_COUNTS=1
exec cargo test --test cuda -- no_more_than_committed
