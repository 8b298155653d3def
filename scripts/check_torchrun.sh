#!/usr/bin/env bash
# examples/cluster/train-torchrun.sh by a real torchrun on two emulated GPUs: interrupted, gone on with, and with a rank that is
# killed; and what torchrun is told on CPUs. Ends with 77 where there is no torchrun. About two minutes on two cores.
#
#   cargo build -p cuemu && PATH=VENV/bin:$PATH scripts/check_torchrun.sh target/release/ossnet target/debug/libcuemu.so
set -euo pipefail
program=$(realpath "$1") emulator=$(realpath "$2")
cd "$(dirname "$0")/.."
command -v torchrun > /dev/null || { echo "check_torchrun.sh: no torchrun here (pip install torch): SKIPPED"; exit 77; }
fail() { echo "check_torchrun.sh: $1"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{bin,nccl}
ln -s "$program" "$work/bin/ossnet"
ln -s "$emulator" "$work/nccl/libnccl.so.2"
script=$PWD/examples/cluster/train-torchrun.sh
cd "$work"
port=$((20000 + $$ % 10000))
export PATH=$work/bin:$PATH GPUS=2 MASTER_PORT=$port OSSNET_MEMORY_BUDGET=256MiB OSSNET_QUIET=1
run=(--preset sample --model o-net-small --points 64 --batch-size 1 --accumulate 4 --deterministic-reduce
    --epochs 10 --validate-every 10 --save-every 0)
# Before what runs on emulated devices.
emulated=(env "LD_PRELOAD=$emulator" "LD_LIBRARY_PATH=$work/nccl" CUEMU_DEVICES=2)
# Starts the script in folder $1, sends signal $2 to torchrun or to rank $3 when there is a checkpoint, and waits for the end.
signalled() {
    "${emulated[@]}" "$script" sample:heads "$1" "${run[@]}" > "$1.out" 2>&1 &
    local launcher=$! target=$! child
    timeout 120 bash -c "until [ -e $1/o-net-small.safetensors ]; do sleep 0.1; done" || fail "$(cat "$1.out")"
    local children
    children=$(cat /proc/$launcher/task/*/children)
    for child in ${3:+$children}; do
        ! tr '\0' '\n' < "/proc/$child/environ" | grep -Fxq "RANK=$3" || target=$child
    done
    local begin=$SECONDS
    kill -s "$2" "$target"
    ! wait "$launcher" || fail "torchrun calls it a success"
    [ $((SECONDS - begin)) -le 10 ] || fail "$1 took $((SECONDS - begin)) s to end"
    for child in $children; do ! kill -0 "$child" 2> /dev/null || fail "process $child is left behind"; done
    [ "$(grep -c '^ossnet: ' "$1.out")" = 1 ] || fail "not one line: $(cat "$1.out")"
}

"${emulated[@]}" ossnet train --device cuda "${run[@]}" --out one > /dev/null
for signal in USR1 TERM KILL; do
    rank=$([ $signal != KILL ] || echo 1)
    signalled "on-$signal" $signal $rank
    "${emulated[@]}" "$script" sample:heads "on-$signal" > resumed.out 2>&1 || fail "$(cat resumed.out)"
    cmp one/o-net-small.safetensors "on-$signal/o-net-small.safetensors" || fail "on-$signal ends with another checkpoint"
    echo "torchrun: SIG$signal${rank:+ to rank $rank} ends all; gone on with, the checkpoint of one process"
done
! torchrun --nproc-per-node 2 --no-python ossnet train --out cpu > cpu.out 2>&1 || fail "processes on CPUs are not refused"
[ "$(grep -c '^ossnet: torchrun (WORLD_SIZE) started this as process 0 of 2' cpu.out)" = 1 ] && [ ! -e cpu ] || fail "$(cat cpu.out)"
echo "torchrun: processes on CPUs are refused with one line"
