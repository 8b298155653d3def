#!/usr/bin/env bash
# Builds the wheel, checks it, installs it offline into a fresh environment, and runs its tests and the notebook there.
#
#     scripts/wheel.sh [--profile NAME]   # wheel by default; dev builds fast and makes a larger wheel
#
# PyPI gives the tools: maturin builds, zig links (scripts/portable.sh), auditwheel confirms the tag. The wheel lands in
# target/python/dist.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=wheel
[ "${1:-}" != --profile ] || profile=${2:?a profile, for example dev}
most=12000000 # bytes
home=target/python
wheels=$home/wheels dist=$home/dist env=$home/env
# shellcheck source=scripts/portable.sh
source scripts/portable.sh

rm -rf "$dist" "$env"
"$tools/bin/maturin" build --manifest-path python/Cargo.toml --profile "$profile" --locked \
    --target "$CARGO_BUILD_TARGET" --compatibility manylinux_2_28 --out "$dist"
wheel=$(echo "$dist"/ossnet-*.whl)
[[ $wheel == *-cp39-abi3-manylinux_2_28_x86_64.whl ]] || { echo "$wheel is no abi3 wheel for manylinux_2_28" >&2; exit 1; }
"$tools/bin/auditwheel" show "$wheel" | tr '\n' ' ' | grep -q 'manylinux_2_28_x86_64' ||
    { echo "auditwheel refuses $wheel" >&2; "$tools/bin/auditwheel" show "$wheel" >&2; exit 1; }
bytes=$(stat --format %s "$wheel")
echo "$wheel: $bytes bytes of at most $most"
[ "$profile" != wheel ] || [ "$bytes" -le "$most" ] || exit 1

# What the tests need is fetched once; the installation itself sees no network.
"$tools/bin/pip" download --quiet --dest "$wheels" numpy pytest nibabel SimpleITK nbclient ipykernel matplotlib
"$python" -m venv "$env"
"$env/bin/pip" install --quiet --no-index --find-links "$wheels" "$wheel"
"$env/bin/python" -c 'import importlib.metadata as m; assert m.requires("ossnet") == ["numpy>=1.22"], m.requires("ossnet")'
"$env/bin/ossnet" --version
"$env/bin/pip" install --quiet --no-index --find-links "$wheels" pytest nibabel SimpleITK nbclient ipykernel matplotlib
# From another folder, so that the installed package is tested and not the one of the tree.
root=$PWD
cd "$home"
"$root/$env/bin/python" -m pytest -q -p no:cacheprovider "$root/python/tests"
"$root/$env/bin/jupyter" execute --output="$root/$home/notebook.ipynb" "$root/examples/memory_and_meshes.ipynb"
