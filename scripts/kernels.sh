#!/usr/bin/env bash
# Compiles kernels/*.cu to the committed kernels/ptx/*.ptx with the pinned compiler and writes the manifest.
#   scripts/kernels.sh [NAME ...]   compile these (default: those whose sources changed)
#   scripts/kernels.sh --check      compile all elsewhere and fail on any difference from what is committed
set -euo pipefail
cd "$(dirname "$0")/.."

pinned=13.0.88
# The PTX language that is written: the oldest that has all the kernels use (parameters above 4 KiB), so that drivers from r530
# on compile it. nvcc writes its own newest; scripts/oldest_ptxas.sh checks that nothing newer is used.
isa=8.1
nvcc=${NVCC:-$(find -L .venv -path '*/bin/nvcc' -print -quit 2>/dev/null || true)}
[ -n "$nvcc" ] || { echo "no nvcc; run scripts/install-nvcc.sh" >&2; exit 1; }
version=$("$nvcc" --version | sed -n 's/.* V\([0-9.]*\)$/\1/p')
[ "$version" = "$pinned" ] || { echo "$nvcc is $version; the committed PTX is made by $pinned" >&2; exit 1; }

manifest() {
    echo "# Made by scripts/kernels.sh: the compiler, its flags, and the SHA-256 of each source."
    echo "nvcc $version"
    echo "flags -O3 -std=c++17 -arch=compute_80"
    echo "ptx $isa"
    (cd kernels && sha256sum -- *.cu *.cuh | LC_ALL=C sort -k2)
}
compile() {
    "$nvcc" -O3 -std=c++17 -arch=compute_80 -ptx "kernels/$1.cu" -o "$2/$1.ptx"
    sed -i "s/^\.version .*/.version $isa/" "$2/$1.ptx"
}
hash_of() { sed -n "s/^\([0-9a-f]*\)  $1\$/\1/p" kernels/ptx/MANIFEST 2>/dev/null; }
changed() { [ "$(sha256sum "kernels/$1" | cut -d' ' -f1)" != "$(hash_of "$1")" ]; }

all=$(cd kernels && ls -- *.cu | sed 's/\.cu$//')
if [ "${1:-}" = --check ]; then
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    for name in $all; do compile "$name" "$made"; done
    manifest > "$made/MANIFEST"
    diff -rq "$made" kernels/ptx || { echo "kernels/ptx is not what the sources give; run scripts/kernels.sh" >&2; exit 1; }
    echo "kernels/ptx is what nvcc $version makes of kernels/*.cu"
    exit
fi
names=${*:-}
if [ -z "$names" ]; then
    headers=no
    for header in kernels/*.cuh; do changed "$(basename "$header")" && headers=yes; done
    # Twins in another precision include the file of the first.
    twin_of_changed() { for file in $(sed -n 's/^#include "\(.*\.cu\)"$/\1/p' "kernels/$1.cu"); do changed "$file" && return; done; false; }
    for name in $all; do
        { [ $headers = yes ] || changed "$name.cu" || twin_of_changed "$name" || [ ! -f "kernels/ptx/$name.ptx" ]; } && names+=" $name"
    done
fi
for name in $names; do echo "$name"; compile "$name" kernels/ptx; done
for ptx in kernels/ptx/*.ptx; do [ -f "kernels/$(basename "$ptx" .ptx).cu" ] || rm "$ptx"; done
manifest > kernels/ptx/MANIFEST
