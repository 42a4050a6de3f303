#!/usr/bin/env bash
# Test with one process per GPU: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
if (($# < 3)); then
    echo 'usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]' >&2
    exit 2
fi

"${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
    --nproc-per-node "$3" \
    "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
