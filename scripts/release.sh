#!/usr/bin/env bash
# Makes what a release holds, in target/release-VERSION: the stripped program with completions and man pages as an archive, the
# wheel, a bill of materials (CycloneDX), and checksums of all. Program and wheel run wherever glibc is 2.28 or newer.
#
#     scripts/release.sh [--no-wheel]
#
# The archive's name and layout are those that `cargo binstall` is told in Cargo.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
OSSNET_COMMIT=${OSSNET_COMMIT:-$(git rev-parse --short=12 HEAD 2>/dev/null || true)}
[ -z "$OSSNET_COMMIT" ] || export OSSNET_COMMIT
# shellcheck source=scripts/portable.sh
source scripts/portable.sh
out=target/release-$version name=ossnet-$version-$CARGO_BUILD_TARGET
rm -rf "$out" && mkdir -p "$out/$name"

scripts/check_binary.py
program=target/$CARGO_BUILD_TARGET/release/ossnet
cp "$program" README.md CHANGELOG.md CITATION.cff LICENSE* "$out/$name"
! readelf --sections "$out/$name/ossnet" | grep -q '\.symtab' || { echo "the program is not stripped" >&2; exit 1; }
"$program" man "$out/$name/man" > /dev/null
mkdir "$out/$name/completions"
for shell in bash zsh fish powershell elvish; do
    "$program" completions "$shell" > "$out/$name/completions/ossnet.$shell"
done
# The same files give the same archive: sorted, without owners, dated as the commit.
date=@$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar --create --sort=name --mtime="$date" --owner=0 --group=0 --numeric-owner --directory "$out" "$name" | gzip -n > "$out/$name.tar.gz"
rm -r "${out:?}/$name"

if [ "${1:-}" != --no-wheel ]; then
    scripts/wheel.sh
    cp target/python/dist/ossnet-*.whl "$out"
fi

scripts/sbom.py > "$out/ossnet-$version.cdx.json"
(cd "$out" && sha256sum -- * > SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
scripts/check_release.py "$out"
ls -l "$out"
