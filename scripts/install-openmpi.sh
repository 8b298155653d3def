#!/usr/bin/env bash
# What `--features mpi` needs: Open MPI with its compiler wrapper and launcher, and the libclang that reads its header.
# Installs Debian's packages where they are missing; fails with a message where it cannot.
set -euo pipefail

is_there() {
    command -v mpicc > /dev/null && command -v mpirun > /dev/null || return 1
    [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p | grep -q 'libclang[-.0-9]*\.so' || ls /usr/lib/llvm-*/lib/libclang.so* > /dev/null 2>&1
}

is_there || "$(dirname "$0")/install-debian.sh" libopenmpi-dev openmpi-bin libclang-dev
if ! is_there; then
    echo "SKIPPED: no Open MPI or libclang here (apt-get install libopenmpi-dev openmpi-bin libclang-dev): runs of several processes are not tested" >&2
    exit 1
fi
mpirun --version | head -1
