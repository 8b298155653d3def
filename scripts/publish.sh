#!/usr/bin/env bash
# Makes a release page of what scripts/release.sh made, on the forge that the clone came from.
#
#     scripts/publish.sh vVERSION
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:?a tag, for example v0.1.0}
folder=target/release-${tag#v}
[ -f "$folder/SHA256SUMS" ] || { echo "$folder holds no release; run scripts/release.sh, and let the tag be Cargo.toml's version" >&2; exit 1; }
gh release create "$tag" --verify-tag --title "ossnet ${tag#v}" --notes-file CHANGELOG.md "$folder"/*
