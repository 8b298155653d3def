#!/usr/bin/env bash
# Packs what a bare Linux machine with an NVIDIA driver needs to show what ossnet does there: the program, the CUDA tests, run.sh.
#   scripts/gpu-bundle.sh              builds, strips and packs .gpu/ossnet-gpu.tar.xz; unpack it there and run ./run.sh smoke
#   scripts/gpu-bundle.sh --rehearse   packs a development build, unpacks it elsewhere and runs it under the emulator, tiny
#
# The bundle is refused if it is larger than 28 MiB or needs a glibc newer than 2.34.
set -euo pipefail
cd "$(dirname "$0")/.."

most=$((28 << 20))
glibc=2.34
rehearse=no
case ${1:-} in
    "") ;;
    --rehearse) rehearse=yes ;;
    *) echo "usage: scripts/gpu-bundle.sh [--rehearse]" >&2; exit 2 ;;
esac

bundle=.gpu/bundle
rm -rf .gpu
mkdir -p "$bundle/bin" "$bundle/kernels"

# The tests run the program that cargo built beside them; on the other machine run.sh puts the bundle where that was.
cargo test --no-run --lib --test cuda --test cuda_memory --message-format=json > .gpu/build.json
tests() { sed -n 's/.*"executable":"\([^"]*\/deps\/[^"]*\)".*/\1/p' .gpu/build.json | sort -u; }
for executable in $(tests); do
    name=$(basename "$executable")
    strip -o "$bundle/bin/test-${name%-*}" "$executable"
done
if [ $rehearse = yes ]; then
    cp -r tests/fixtures/phantoms/Task03_Liver "$bundle/phantom"
    strip -o "$bundle/bin/ossnet" target/debug/ossnet
else
    OSSNET_NVCC=0 cargo build --release
    strip -o "$bundle/bin/ossnet" target/release/ossnet
fi
cp kernels/resources.tsv kernels/counts.tsv kernels/launches.tsv "$bundle/kernels/"
cp scripts/gpu/run.sh "$bundle/run.sh"
{
    echo "commit $(git rev-parse HEAD)"
    echo "root $PWD"
    echo "program $PWD/target/debug/ossnet"
} > "$bundle/built"

newest=$(cat "$bundle"/bin/* | grep -ao 'GLIBC_2\.[0-9]*' | sort -Vu | tail -1)
[ "$(printf 'GLIBC_%s\n%s\n' "$glibc" "$newest" | sort -V | tail -1)" = "GLIBC_$glibc" ] ||
    { echo "the bundle needs $newest, and GLIBC_$glibc is the newest that is promised" >&2; exit 1; }
level=-6
[ $rehearse = no ] || level=-0
tar -C .gpu -cf - bundle | xz -T0 $level > .gpu/ossnet-gpu.tar.xz
size=$(stat -c %s .gpu/ossnet-gpu.tar.xz)
echo ".gpu/ossnet-gpu.tar.xz: $size bytes, $newest"
if [ $rehearse = no ]; then
    [ "$size" -le $most ] || { echo "more than $most bytes" >&2; exit 1; }
    exit
fi

# What will be typed there, here: unpacked in another folder, on a device that is emulated, at sizes that it can compute.
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
tar -C "$elsewhere" -xJf .gpu/ossnet-gpu.tar.xz
emulator=$(find "$PWD/target/debug" -name libcuemu.so -print -quit)
for part in smoke tests bench sanitize; do
    REHEARSE=$emulator OUT=$elsewhere/out-$part "$elsewhere/bundle/run.sh" $part
    [ -s "$elsewhere/out-$part/result.json" ] || { echo "run.sh $part left no result" >&2; exit 1; }
done
echo "rehearsed"
