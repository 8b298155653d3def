#!/usr/bin/env bash
# Holds licences, sources and versions of what the program depends on to deny.toml; scripts/deny.sh advisories asks RustSec's database
# (from the network; 77 says that there was none) as well.
#
# Installs cargo-deny into target/tools, unless cargo has it.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/cargo_tool.sh
source scripts/cargo_tool.sh
cargo_tool deny 0.20.2
cargo deny check licenses bans sources
[ "${1:-}" = advisories ] || exit 0
told=$(cargo deny check advisories 2>&1) && status=0 || status=$?
if grep -q 'failed to fetch advisory database' <<< "$told"; then
    echo "advisories: SKIPPED, RustSec's database could not be fetched"
    exit 77
fi
echo "$told"
exit $status
