#!/bin/sh
# One machine of eight GPUs, or several: NODES=8 HEAD=first-machine:29500, the same line on each of them. On one machine:
#   sh configs/launch/torchrun.sh configs/launch/mesh.yaml --set train.parallel.data=1
# --max-restarts: where a process dies, all are started again, and go on from the newest checkpoint.
set -eu
exec torchrun \
    --nnodes "${NODES:-1}" \
    --nproc-per-node "${GPUS:-8}" \
    --max-restarts 3 \
    --rdzv-backend c10d \
    --rdzv-id "${RUN:-moelab}" \
    --rdzv-endpoint "${HEAD:-localhost:29500}" \
    -m moelab train "${@:-configs/launch/mesh.yaml}" --out "${OUT:-runs}"
