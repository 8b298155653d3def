#!/usr/bin/env bash
# Holds licences, sources and versions of what the program depends on to deny.toml; scripts/deny.sh advisories asks RustSec's database
# (from the network) as well.
#
# Installs cargo-deny into target/tools, unless cargo has it.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
if ! cargo deny --version > /dev/null 2>&1; then
    PATH="$PWD/target/tools/bin:$PATH"
    cargo deny --version 2> /dev/null | grep -q "$version" ||
        cargo install --quiet --locked --root target/tools --version "$version" cargo-deny
fi
cargo deny check licenses bans sources "$@"
