#!/bin/bash
# Trains one network by several processes with Open MPI's mpirun, on this machine or on those of a host file, and goes on where an
# earlier run of the same folder has stopped:
#
#   PROCESSES=4 THREADS=8 [HOSTFILE=hosts] ./train-mpirun.sh DATA OUT [flags of ossnet train]
#
# What belongs to the machine and not to the run is said by variables, which every start reads, and not by flags, which only the
# first one gets: OSSNET_MEMORY_BUDGET, say.
# Also as a job: sbatch --ntasks=4 --cpus-per-task=8 train-mpirun.sh DATA OUT; mpirun then finds the nodes by itself.
set -euo pipefail

data=$1 out=$2
shift 2
processes=${PROCESSES:-${SLURM_NTASKS:-2}}
threads=${THREADS:-${SLURM_CPUS_PER_TASK:-1}}
if [ -e "$out/config.toml" ]; then
  what=(--resume "$out")
else
  what=(--data "$data" --out "$out" "$@")
fi

# Each process has cores of its own. Ctrl-C ends all at once; SIGUSR1 to mpirun reaches every process: they save and exit with 130.
exec mpirun -n "$processes" ${HOSTFILE:+--hostfile "$HOSTFILE"} --map-by "slot:PE=$threads" --bind-to core \
  ossnet train "${what[@]}" --threads "$threads"
