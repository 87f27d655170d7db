"""Slurm's environment variables, and what a task finds in their place."""

from __future__ import annotations

import re

NAME = re.compile(r"\bSLURM[A-Z]*_[A-Z0-9_]+")

# In the script they are set from our own variables, or (those in braces) from what its #SBATCH lines say.
VARIABLES: dict[str, str] = {
    "SLURM_JOB_ID": "$HASCHED_JOB_ID",
    "SLURM_JOBID": "$HASCHED_JOB_ID",
    "SLURM_JOB_NAME": "$HASCHED_JOB_NAME",
    "SLURM_ARRAY_JOB_ID": "$HASCHED_JOB_ID",
    "SLURM_ARRAY_TASK_ID": "{index}",
    "SLURM_ARRAY_TASK_COUNT": "$HASCHED_TASK_COUNT",
    "SLURM_ARRAY_TASK_MIN": "{first}",
    "SLURM_ARRAY_TASK_MAX": "{last}",
    "SLURM_ARRAY_TASK_STEP": "{step}",
    "SLURM_CPUS_PER_TASK": "{cpus_per_task}",
    "SLURM_CPUS_ON_NODE": "{cpus}",
    "SLURM_JOB_CPUS_PER_NODE": "{cpus}",
    "SLURM_GPUS_ON_NODE": "{gpus}",
    "SLURM_JOB_NUM_NODES": "{nodes}",
    "SLURM_NNODES": "{nodes}",
    "SLURM_NODEID": "${{HASCHED_NODE_RANK:-0}}",
    "SLURM_NPROCS": "{ntasks}",
    "SLURM_NTASKS": "{ntasks}",
    "SLURM_NTASKS_PER_NODE": "{tasks_per_node}",
    "SLURM_PROCID": "${{HASCHED_RANK:-0}}",
    "SLURM_LOCALID": "0",
    "SLURM_RESTART_COUNT": "$((HASCHED_ATTEMPT - 1))",
    "SLURM_SUBMIT_DIR": "{directory}",
    "SLURMD_NODENAME": "$HASCHED_NODE",
}
# What has no value of its own here, and what to do.
ELSEWHERE: dict[str, str] = {
    "SLURM_JOB_NODELIST": "HASCHED_NODES names the nodes of a gang, with commas, and HASCHED_HOSTFILE is a file of them",
    "SLURM_NODELIST": "HASCHED_NODES names the nodes of a gang, with commas, and HASCHED_HOSTFILE is a file of them",
    "SLURM_MEM_PER_NODE": "write the amount into the script",
    "SLURM_MEM_PER_CPU": "write the amount into the script",
    "SLURM_TMPDIR": "a task begins in an empty directory of its own, if it has no working_dir",
}


def used_in(script: str) -> dict[str, int]:
    """The variables that a script speaks of, with the first line."""
    found: dict[str, int] = {}
    for number, line in enumerate(script.split("\n"), 1):
        for name in NAME.findall(line):
            found.setdefault(name, number)
    return found
