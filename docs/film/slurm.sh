#!/usr/bin/env bash
# A job of `fvr restore --job` on SLURM:   sbatch --array=0-399%8 docs/film/slurm.sh work/
# One task restores one segment; numbers beyond the last segment do nothing. Run it again, and only what is missing is done.
#SBATCH --job-name=fvr
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --requeue
set -euo pipefail
job=${1:?the folder of a job}
segments=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1] + "/job.json"))["segments"]))' "$job")
if [ "${SLURM_ARRAY_TASK_ID:?run me by sbatch --array}" -lt "$segments" ]; then
    exec fvr segment "$job" "$SLURM_ARRAY_TASK_ID"
fi
