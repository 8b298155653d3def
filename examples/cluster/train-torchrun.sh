#!/bin/bash
# Trains one network on all GPUs of a machine, or of several, with torchrun, and goes on where an earlier run in the same folder
# has stopped:
#
#   train-torchrun.sh DATA OUT [flags of ossnet train]
#
# On several machines each runs this with NODES, NODE (its number, from 0) and MASTER_ADDR (the first one's name); DATA and
# OUT lie on a disk that they share. NCCL must be found (docs/distributed.md). What belongs to the machine and not to the run is
# said by variables, which every start reads, and not by flags, which only the first one gets: OSSNET_MEMORY_BUDGET, say.
set -euo pipefail
data=$1 out=$2
shift 2
if [ -e "$out/config.toml" ]; then
  what=(--resume "$out")
else
  what=(--data "$data" --out "$out" "$@")
fi

# By default torchrun ends at SIGUSR1 and leaves its processes behind. Older ones, which do not know this, still do.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
exec torchrun --nnodes "${NODES:-1}" --node-rank "${NODE:-0}" --nproc-per-node "${GPUS:-gpu}" \
  --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
  --no-python ossnet train --device cuda "${what[@]}"
