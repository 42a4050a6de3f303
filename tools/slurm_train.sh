#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS set the resources to request. GRES
# replaces gpu:GPUS_PER_NODE; GRES= requests none, for nodes with CPUs only.
set -euo pipefail
if (($# < 3)); then
    echo 'usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of train.py]' >&2
    exit 2
fi
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
gres=${GRES-gpu:$gpus_per_node}

# SRUN_ARGS is unquoted on purpose: it may hold several arguments.
srun --partition "$1" --job-name "$2" \
    --ntasks "$gpus" --ntasks-per-node "$gpus_per_node" ${gres:+--gres "$gres"} \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$3" \
    --launcher slurm "${@:4}"
