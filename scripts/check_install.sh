#!/usr/bin/env bash
# `cargo install --path .` into an empty folder, and that the installed program runs. What scripts/release.sh compiled is used.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# shellcheck source=scripts/portable.sh
source scripts/portable.sh
cargo install --quiet --path . --locked --root "$root" --target-dir target
"$root/bin/ossnet" --version
"$root/bin/ossnet" memory --model unet3d --volume 32x32x32 --quiet > /dev/null
