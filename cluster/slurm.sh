#!/usr/bin/env bash
# A search on several nodes of a Slurm cluster: sbatch cluster/slurm.sh --config radius --preset 2SoftMlpMNIST ...
#
# The words after the script go to ray_search.py. The project and its .venv lie on a file system that every node
# mounts, and so does $HEBB_HOME. A job that Slurm ends early is continued by the same line with --restore NAME.

#SBATCH --job-name=hebb-search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?is set by sbatch}"
export HEBB_HOME="${HEBB_HOME:-$PWD/hebb_data}" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_TOKEN
RAY_AUTH_TOKEN="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"  # one for all nodes of this job, in no file

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head="${nodes[0]}"
port=$((20000 + SLURM_JOB_ID % 10000))

srun --nodes=1 --ntasks=1 --nodelist="$head" \
    .venv/bin/ray start --head --node-ip-address="$head" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" \
    --include-dashboard false --block &
sleep 20 # until the head listens
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --nodelist="$node" \
        .venv/bin/ray start --address="$head:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
done
sleep 20

# --signal above sends TERM to this shell two minutes before the end: the search stops cleanly and prints how to continue
.venv/bin/python ray_search.py --address "$head:$port" --data-dir "$HEBB_HOME" "$@" &
search=$!
trap 'kill -TERM "$search"' TERM INT
status=0
wait "$search" || status=$?
if [[ $status -gt 128 ]]; then
    status=0
    wait "$search" || status=$?
fi
exit "$status"
