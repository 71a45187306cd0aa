#!/bin/sh
# sbatch configs/launch/slurm.sh configs/launch/mesh.yaml: eight machines of eight GPUs, one torchrun on each.
# The folder of runs lies on a file system that all of them see. --requeue: after a failed machine the same run goes on.
#SBATCH --job-name=moelab
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue
#SBATCH --output=moelab-%j.log
set -eu
NODES="$SLURM_JOB_NUM_NODES"
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500"
RUN="$SLURM_JOB_ID"
export NODES HEAD RUN
exec srun --cpus-per-task 64 sh configs/launch/torchrun.sh "$@"
