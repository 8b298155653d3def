#!/usr/bin/env bash
# Mutation tests: changes one expression after the other, and asks whether a unit test notices. scripts/mutants.sh 3/500 does the
# third of five hundred shards (default 0/100; all of them take days), scripts/mutants.sh 0/1 -f src/memory/layout.rs a file.
# Survivors are listed, and in target/mutants/mutants.out/missed.txt.
#
# Installs cargo-mutants into target/tools, unless cargo has it.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/cargo_tool.sh
source scripts/cargo_tool.sh
cargo_tool mutants 27.1.0

shard=${1:-0/100}
shift || true
files=("$@")
[ ${#files[@]} -gt 0 ] ||
    files=(-f 'src/memory/**' -f 'src/data/**' -f 'src/evaluate/**' -f 'src/train/**' -f 'src/planner/**')
# A change in a loop may make it run for ever.
exec cargo mutants --shard "$shard" "${files[@]}" --output target/mutants --no-shuffle --timeout 300 \
    -- --lib --config 'profile.dev.package.ossnet.opt-level=0' -- memory:: data:: evaluate:: train:: planner:: infer::
