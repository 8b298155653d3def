#!/usr/bin/env bash
# Runs under Miri, which finds undefined behaviour, the tests of the `unsafe` that needs neither SIMD nor files: buffers of the arena
# (src/device/buffer.rs), slices that the pieces of a parallel loop share (src/device/cpu/pool.rs), and the portable kernels over
# them. Threads are interleaved as Miri draws it; `MIRIFLAGS=-Zmiri-seed=N` draws again. Other tests can be named:
# scripts/miri.sh ops::moments
#
# Needs a nightly toolchain with the component miri; 77 says that there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version > /dev/null 2>&1; then
    echo "miri: SKIPPED, there is no nightly toolchain with it here (rustup +nightly component add miri)"
    exit 77
fi
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(device::tests ops::add::tests::both ops::add::tests::shapes)
# Aliasing by the tree model: rayon's queue (crossbeam-epoch) is refused by the older one, stacked borrows. Pools of threads live until
# the process ends; files and clocks are the system's.
export MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-ignore-leaks -Zmiri-disable-isolation ${MIRIFLAGS:-}" RAYON_NUM_THREADS=2
cargo +nightly miri test --lib --no-default-features --features train,report -- "${tests[@]}"
