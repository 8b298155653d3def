#!/usr/bin/env bash
# What to run where a GPU is. Needs a driver (r530 or newer), bash and coreutils; no network, no toolkit, no compiler.
#   ./run.sh smoke      the device; every kernel loaded; three steps of each network in each precision, with and without graphs,
#                       twice, against the CPU; planned against reserved bytes
#   ./run.sh tests      the CUDA tests, on the GPU or not at all
#   ./run.sh bench      each op's time between events beside its bound; steps a second, and the share that the device waited
#   ./run.sh sanitize   compute-sanitizer over a training step, where it is installed
#
# Each part takes less than eight minutes. $OUT (default: out-PART) holds result.json and what every command said; the exit
# status is 0 if nothing failed. MODELS, PRECISIONS, VOLUMES narrow a part down.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
part=${1:-}
case $part in
    smoke | tests | bench | sanitize) ;;
    *) echo "usage: run.sh smoke|tests|bench|sanitize" >&2; exit 2 ;;
esac
OUT=${OUT:-$PWD/out-$part}
mkdir -p "$OUT"
ossnet=$here/bin/ossnet
began=$(date +%s)
failures=0
: > "$OUT/steps.jsonl"

device=(--device cuda)
models=${MODELS:-o-net oss-net-c unet3d unet2d}
precisions=${PRECISIONS:-f32 tf32 bf16}
volumes=${VOLUMES:-64x64x64 128x128x80 256x256x160}
points=1024 epochs=3 bench_epochs=25 bench_points=16384
export OSSNET_REQUIRE_GPU=1
# A rehearsal under the emulator, whose path REHEARSE is: the same commands at sizes that it can compute.
if [ -n "${REHEARSE:-}" ]; then
    unset OSSNET_REQUIRE_GPU
    export LD_PRELOAD=$REHEARSE CUEMU_LIB=$REHEARSE CUEMU_ALWAYS=1 CUEMU_THREADS=2
    models=${MODELS:-o-net-small} precisions=${PRECISIONS:-f32 bf16} volumes=${VOLUMES:-32x32x32}
    points=16 epochs=1 bench_epochs=1 bench_points=16
    device+=(--memory-budget 1GiB)
    DATA=${DATA:-$here/phantom}
fi

# note NAME OK SECONDS [KEY VALUE]...: a line of the result.
note() {
    local line="{\"name\":\"$1\",\"ok\":$2,\"seconds\":$3"
    shift 3
    while [ $# -ge 2 ]; do line+=",\"$1\":$2"; shift 2; done
    echo "$line}" >> "$OUT/steps.jsonl"
}

# step NAME SECONDS COMMAND...: runs it for so long at most; what it says is kept under its name.
step() {
    local name=$1 limit=$2 start status seconds
    shift 2
    start=$(date +%s.%N)
    timeout "$limit" "$@" > "$OUT/$name.out" 2> "$OUT/$name.err"
    status=$?
    seconds=$(echo "$start $(date +%s.%N)" | awk '{printf "%.2f", $2 - $1}')
    if [ $status -eq 0 ]; then
        note "$name" true "$seconds"
    else
        failures=$((failures + 1))
        note "$name" false "$seconds" status $status
        echo "FAILED $name (status $status): $(tail -n 1 "$OUT/$name.err")"
    fi
    return $status
}

# check NAME COMMAND...: notes whether a condition holds.
check() {
    local name=$1
    shift
    if "$@"; then note "$name" true 0; else
        failures=$((failures + 1))
        note "$name" false 0
        echo "FAILED $name"
    fi
}

# The loss of the first step of a run.
first_loss() { grep -o '"loss":[0-9.eE+-]*' "$1/log.jsonl" | head -n 1 | cut -d: -f2; }

# near A B SHARE: |A − B| ≤ SHARE · |B|.
near() { awk -v a="${1:-nan}" -v b="${2:-nan}" -v share="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; if (b < 0) b = -b; exit !(d <= share * b) }'; }

# What rounding may do to a loss: f32 sums in another order; operands of 11 and of 8 bits, whose errors the layers pass on.
tolerance() { case $1 in f32) echo 1e-5 ;; tf32) echo 1e-2 ;; *) echo 5e-2 ;; esac; }

# train NAME FLAGS...: a short training on the embedded scans (or on $DATA), in its own folder.
train() {
    local name=$1
    shift
    rm -rf "${OUT:?}/$name"
    step "$name" 120 "$ossnet" train --quiet --seed 1 --preset sample ${DATA:+--data "$DATA"} --points "$points" --epochs "$epochs" --out "$OUT/$name" "$@"
}

weights() { echo "$OUT/$1/$2.safetensors"; }

smoke() {
    [ -n "${REHEARSE:-}" ] || step nvidia-smi 20 nvidia-smi -q
    step devices 60 "$ossnet" devices --json
    step kernels 300 "$ossnet" devices --kernels --json
    for model in $models; do
        train "$model-cpu" --model "$model"
        for precision in $precisions; do
            local name=$model-$precision
            train "$name-once" --model "$model" --precision "$precision" "${device[@]}" || continue
            train "$name-twice" --model "$model" --precision "$precision" "${device[@]}"
            train "$name-graph" --model "$model" --precision "$precision" --graph "${device[@]}"
            check "$name-equal-bits" cmp -s "$(weights "$name-once" "$model")" "$(weights "$name-twice" "$model")"
            check "$name-graph-equal-bits" cmp -s "$(weights "$name-once" "$model")" "$(weights "$name-graph" "$model")"
            check "$name-first-loss-as-cpu" near "$(first_loss "$OUT/$name-once")" "$(first_loss "$OUT/$model-cpu")" "$(tolerance "$precision")"
        done
        local flags=(--model "$model" --volume 32x32x32 --points 64 --steps 1 --json)
        local bytes='s/.*"reserved_bytes": *\([0-9]*\).*/\1/p'
        step "$model-bytes" 60 "$ossnet" memory "${flags[@]}" "${device[@]}"
        local arch
        arch=$(sed -n '/"capability"/,/\]/p' "$OUT/devices.out" | grep -o '[0-9]\+' | head -n 2 | tr -d '\n')
        step "$model-planned" 60 "$ossnet" memory "${flags[@]}" --plan-for "sm_${arch:-80}"
        local reserved planned
        reserved=$(sed -n "$bytes" "$OUT/$model-bytes.out" | head -n 1) planned=$(sed -n "$bytes" "$OUT/$model-planned.out" | head -n 1)
        check "$model-reserved-as-planned" test "${reserved:-none}" = "$planned"
    done
}

tests() {
    # The tests look for the program and their files where they were built.
    local root program
    root=$(sed -n 's/^root //p' "$here/built") program=$(sed -n 's/^program //p' "$here/built")
    if [ ! -e "$program" ] && ! { mkdir -p "$(dirname "$program")" && ln -s "$ossnet" "$program" && ln -sfn "$here/kernels" "$root/kernels"; } 2> /dev/null; then
        echo "cannot make $program: tests that run the program will fail; run as a user who may"
    fi
    export OSSNET_TEST_DEVICES=cuda
    local filter=(--test-threads "${TEST_THREADS:-8}")
    # Loading first fills the driver's cache, so that no test compiles.
    step kernels 300 "$ossnet" devices --kernels
    if [ -n "${REHEARSE:-}" ]; then
        unset LD_PRELOAD
        step test-cuda 240 "$here/bin/test-cuda" "${filter[@]}" graphs::copies
        return
    fi
    step test-ossnet 240 "$here/bin/test-ossnet" "${filter[@]}"
    step test-cuda 240 "$here/bin/test-cuda" "${filter[@]}"
    step test-cuda_memory 120 "$here/bin/test-cuda_memory" "${filter[@]}"
    grep -h '^test .*FAILED$' "$OUT"/test-*.out | sort -u > "$OUT/failed-tests.txt"
    cat "$OUT/failed-tests.txt"
}

bench() {
    step devices 60 "$ossnet" devices --json
    for model in $models; do
        for volume in $volumes; do
            for precision in $precisions; do
                step "roofline-$model-$volume-$precision" 60 \
                    "$ossnet" roofline --measure --json --model "$model" --volume "$volume" --points "$bench_points" --precision "$precision"
            done
        done
        epochs=$bench_epochs
        for graph in "" --graph; do
            local name=train-$model${graph#-}
            train "$name" --model "$model" --precision bf16 $graph "${device[@]}"
        done
    done
    if python3 -c 'import torch; torch.cuda.current_device()' 2> /dev/null; then note pytorch-is-there true 0; fi
}

sanitize() {
    local tool
    if ! command -v compute-sanitizer > /dev/null; then
        note compute-sanitizer-is-not-installed true 0
        echo "compute-sanitizer is not installed here: nothing was run"
        return
    fi
    export OSSNET_ARENA=separate OSSNET_CUDA_WAIT=1
    points=16 epochs=1
    for tool in memcheck racecheck synccheck; do
        rm -rf "$OUT/$tool"
        step "$tool" 150 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$ossnet" memory --model o-net-small --volume 16x16x16 --points 16 --steps 1 "${device[@]}"
    done
}

"$part"
{
    printf '{"part":"%s","commit":"%s","date":"%s","host":"%s","rehearsed":%s,"seconds":%s,"failures":%s,"steps":[\n' \
        "$part" "$(sed -n 's/^commit //p' "$here/built")" "$(date -u +%FT%TZ)" "$(uname -sr)" \
        "$([ -n "${REHEARSE:-}" ] && echo true || echo false)" "$(($(date +%s) - began))" "$failures"
    sed '$!s/$/,/' "$OUT/steps.jsonl"
    echo ']}'
} > "$OUT/result.json"
echo "$part: $failures failures, $(($(date +%s) - began)) s, $OUT/result.json"
[ "$failures" -eq 0 ]
