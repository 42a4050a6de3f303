#!/usr/bin/env bash
# Train with one process per GPU: tools/dist_train.sh CONFIG GPUS [options of train.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
if (($# < 2)); then
    echo 'usage: tools/dist_train.sh CONFIG GPUS [options of train.py]' >&2
    exit 2
fi

"${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
    --nproc-per-node "$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
