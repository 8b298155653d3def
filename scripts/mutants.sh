#!/usr/bin/env bash
# Mutation tests: changes one expression after the other, and asks whether the unit tests of its module, or of those that lean on
# it, notice.
#
#     scripts/mutants.sh [SHARD [AREA ...]]    # SHARD is 3/500 for the third of five hundred (default 0/100; all take days)
#     scripts/mutants.sh 0/1 src/memory/layout.rs
#
# An AREA is memory, data, evaluate, train, planner (default: all five) or a file of one. Survivors are listed, and in
# target/mutants/AREA/mutants.out/missed.txt. Installs cargo-mutants into target/tools, unless cargo has it.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/cargo_tool.sh
source scripts/cargo_tool.sh
cargo_tool mutants 27.1.0

shard=${1:-0/100}
shift || true
areas=("$@")
[ ${#areas[@]} -gt 0 ] || areas=(memory data evaluate train planner)
failed=0
for area in "${areas[@]}"; do
    files="src/$area/**" name=$area
    [ ! -f "$area" ] || { files=$area; name=${area#src/}; name=${name%%/*}; }
    case $name in
    memory) tests=(memory:: device::) ;;
    train) tests=(train:: nn::) ;;
    planner) tests=(planner:: plan::) ;;
    *) tests=("$name::") ;;
    esac
    # A change in a loop may make it run for ever. What stands behind `--` reaches the tests alone; the build is told with --cargo-arg.
    cargo mutants --shard "$shard" -f "$files" --output "target/mutants/$name" --no-shuffle --timeout 120 \
        --cargo-arg=--lib --cargo-arg=--config --cargo-arg=profile.dev.package.ossnet.opt-level=0 -- -- "${tests[@]}" || failed=$?
done
exit $failed
