#!/usr/bin/env bash
# Runs each fuzz target for SECONDS (60 unless given), or those that are named: scripts/fuzz.sh 60 nifti ptx
#
# Needs a C++ compiler and a plain Rust toolchain: the targets are built with the compiler's coverage passes, which stable Rust
# has, and without sanitizers, which it has not. (Where a nightly toolchain and cargo-fuzz are installed, `cargo fuzz run TARGET`
# does the same under AddressSanitizer.) New inputs are kept in fuzz/corpus, a finding in fuzz/artifacts; run the program on it
# to see it again: fuzz/target/release/nifti fuzz/artifacts/nifti/crash-…
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(nifti pickle safetensors dataset config run_log checkpoint ptx)

# What cargo-fuzz passes, less the sanitizer.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS=$(tr -s '\n ' ' ' <<<"$RUSTFLAGS")
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
# A target triple keeps the flags from build scripts and procedural macros.
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --quiet --target "$triple" --target-dir target "${bins[@]}"

failed=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=$(mktemp)
    # One input of 64 KiB may take five seconds and 2 GiB.
    if "target/$triple/release/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" -timeout=5 \
        -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"$log" 2>&1; then
        echo "$target: $(sed -n 's/stat::number_of_executed_units: *//p' "$log") executions, no finding"
    else
        failed=1
        echo "$target: FINDING"
        tail -n 40 "$log"
    fi
    rm -f "$log"
done
exit $failed
