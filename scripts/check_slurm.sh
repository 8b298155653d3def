#!/usr/bin/env bash
# What examples/cluster gives to Slurm, on a Slurm of one node in a folder of its own: srun on two emulated GPUs, a rank that is killed,
# a job that is warned and comes again, and an array with a task that is killed. Installs Debian's packages where it can, and ends
# with 77 where it cannot. About two minutes on two cores.
#
#   cargo build -p cuemu && scripts/check_slurm.sh target/release/ossnet target/debug/libcuemu.so
set -euo pipefail
program=$(realpath "$1") emulator=$(realpath "$2")
cd "$(dirname "$0")/.."

skip() { echo "check_slurm.sh: $1: SKIPPED"; exit 77; }
fail() { echo "check_slurm.sh: $1"; exit 1; }
[ "$(id -u)" = 0 ] || skip "slurmd wants to be root"
are_there() { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null
are_there || scripts/install-debian.sh slurm-wlm munge
are_there || skip "no Slurm here (apt-get install slurm-wlm munge)"

work=$(mktemp -d)
export SLURM_CONF=$work/slurm.conf
stop() {
    scancel --user=root --signal=KILL --full > /dev/null 2>&1 || true
    for daemon in slurmctld slurmd munged; do [ ! -e "$work/$daemon.pid" ] || kill "$(cat "$work/$daemon.pid")" || true; done
    sleep 1
    rm -rf "$work"
}
trap stop EXIT

mkdir "$work"/{bin,nccl,state,spool}
ln -s "$program" "$work/bin/ossnet"
ln -s "$emulator" "$work/nccl/libnccl.so.2"
(umask 077 && head -c 1024 /dev/urandom > "$work/key")
host=$(hostname -s) port=$((30000 + $$ % 10000 * 2))
cat > "$SLURM_CONF" << END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthInfo=socket=$work/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000
PartitionName=main Nodes=$host Default=YES
END
munged --force --key-file="$work/key" --socket="$work/munge" --pid-file="$work/munged.pid" \
    --log-file="$work/munged.log" --seed-file="$work/seed" 2> /dev/null
slurmctld -c && slurmd -N "$host" || skip "Slurm's daemons do not start"
timeout 60 bash -c 'until sinfo --noheader --states=idle | grep -q main; do sleep 0.2; done' ||
    skip "the node does not come up: $(tail -n 3 "$work/slurmctld.log" "$work/slurmd.log")"

# All that is started from here on finds emulated devices.
examples=$PWD/examples/cluster scans=$PWD/assets/sample/heads/imagesTr
cd "$work"
export PATH=$work/bin:$PATH LD_PRELOAD=$emulator LD_LIBRARY_PATH=$work/nccl CUEMU_DEVICES=2
export OSSNET_DEVICE=cuda OSSNET_MEMORY_BUDGET=256MiB OSSNET_SLURM_MPI=none OSSNET_QUIET=1
run=(--preset sample --model o-net-small --points 64 --batch-size 1 --accumulate 4 --deterministic-reduce
    --epochs 10 --validate-every 10 --save-every 0)

# The program's processes in this Slurm that have $1, NAME=VALUE, in their environment.
those() {
    local process
    for process in $(pgrep -x ossnet); do
        tr '\0' '\n' < "/proc/$process/environ" 2> /dev/null | grep -Fxc -e "SLURM_CONF=$SLURM_CONF" -e "$1" | grep -qx 2 && echo "$process"
    done || true
}
# Until command $1 succeeds, two minutes at most.
await() { timeout 120 bash -c "until $1; do sleep 0.1; done" || fail "waited in vain until $1"; }
ended() { await "! squeue --noheader --jobs=$1 2> /dev/null | grep -q ."; }
# Slurm lets a requeued job wait for two minutes; in the second of its end it could not be started.
again() { await "scontrol show job $1 | grep -q Reason=BeginTime" && sleep 3 && scontrol update "job=$1" StartTime=now; }
same() { cmp "one/o-net-small.safetensors" "$1/o-net-small.safetensors" || fail "$1 ends with another checkpoint"; }

ossnet train "${run[@]}" --out one > /dev/null
srun --ntasks=2 ossnet train "${run[@]}" --out two > /dev/null
same two
echo "srun: two processes end with the checkpoint of one"

srun --ntasks=2 ossnet train "${run[@]}" --out killed > /dev/null 2> killed.err &
launcher=$!
await "[ -e killed/o-net-small.safetensors ]"
kill -KILL "$(those SLURM_PROCID=1)"
begin=$SECONDS code=0
wait "$launcher" || code=$?
[ "$code" = 137 ] && [ $((SECONDS - begin)) -le 10 ] && [ "$(grep -c '^ossnet: rank 1 has died' killed.err)" = 1 ] ||
    fail "a killed rank: exit status $code after $((SECONDS - begin)) s, and $(cat killed.err)"
echo "srun: a killed rank ends both in $((SECONDS - begin)) s"

job=$(sbatch --parsable --nodes=1 --cpus-per-task=1 --mem=2G "$examples/train.slurm" sample:heads warned "${run[@]}")
await "[ -e warned/o-net-small.safetensors ]"
scancel --signal=USR1 "$job"
again "$job"
ended "$job"
grep -q interrupted "ossnet-train-$job.log" || fail "train.slurm was not interrupted: $(cat "ossnet-train-$job.log")"
same warned
echo "train.slurm: warned, it saves, comes again, and ends with the same checkpoint"

ossnet train --preset sample --model unet3d --epochs 1 --device cpu --out net > /dev/null
ossnet infer --load-model net/unet3d.safetensors --input "$scans" --out plain > /dev/null
sed 's/^shards=.*/shards=2/' "$examples/infer.slurm" > infer.slurm
submit() { sbatch --parsable --cpus-per-task=1 --mem=1G --array="$1" infer.slurm net/unet3d.safetensors "$scans" out; }
job=$(submit 1-2)
until task=$(those SLURM_ARRAY_TASK_ID=2) && [ -n "$task" ]; do sleep 0.1; done
kill -KILL "$task"
ended "$job"
! ossnet infer --merge out > /dev/null 2>&1 || fail "shards are merged though one was killed"
ended "$(submit 2)"
ossnet infer --merge out > /dev/null
for file in plain/*.nii.gz; do cmp "$file" "out/${file##*/}" || fail "$file differs"; done
[ "$(find out -name '*.nii.gz' | wc -l)" = "$(find plain -name '*.nii.gz' | wc -l)" ] || fail "other files than one run makes"
echo "infer.slurm: a killed task submitted again; the files of one run"
