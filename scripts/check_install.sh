#!/usr/bin/env bash
# `cargo install --path .` into an empty folder, and that the installed program runs.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# The release profile's artefacts are those that scripts/release.sh left.
cargo install --quiet --path . --locked --root "$root" --target-dir target
"$root/bin/ossnet" --version
"$root/bin/ossnet" memory --model unet3d --volume 32x32x32 --quiet > /dev/null
