"""Options of sbatch that have no counterpart, and those that come out otherwise whatever their value is."""

from __future__ import annotations

_BINDING = "tasks are bound to no cores or sockets; GPUs near to each other: `placement.gpu_locality`"
_CLUSTER = "a job is submitted to one cluster: choose it with `hasched --context`"

NO_COUNTERPART: dict[str, str] = {
    "acctg-freq": "usage is always accounted for",
    "bb": "there are no burst buffers",
    "bbf": "there are no burst buffers",
    "cluster-constraint": _CLUSTER,
    "clusters": _CLUSTER,
    "container": "tasks run as processes: start the container in the script",
    "contiguous": "nodes have no order; near to each other by a label: `placement.affinity`",
    "core-spec": _BINDING,
    "cores-per-socket": _BINDING,
    "cpu-bind": _BINDING,
    "cpu-freq": "clocks stay as the node has them",
    "delay-boot": "nodes aren't booted for jobs",
    "distribution": _BINDING,
    "exclusive": "a node isn't given to one job: ask for all its CPUs",
    "export-file": "write the variables into the script, or `--export=NAME=VALUE`",
    "extra-node-info": _BINDING,
    "get-user-env": "the environment is the node's: name what it needs in `env`",
    "gid": "tasks run as the agent's user",
    "gpu-bind": _BINDING,
    "gpu-freq": "clocks stay as the node has them",
    "gpus-per-socket": _BINDING,
    "gres-flags": _BINDING,
    "hint": _BINDING,
    "hold": "submit it, and `hasched job suspend` it",
    "input": "stdin is empty: `hasched job submit --input FILE` hands a file to each task as $HASCHED_INPUT",
    "mcs-label": "who sees what is by namespace",
    "mem-bind": _BINDING,
    "mincpus": "write the CPUs into --cpus-per-task",
    "network": 'fast networks are attributes of nodes: `--constraint "interconnect == infiniband"` of `hasched job run`',
    "no-kill": "a gang that loses a node starts again as a whole",
    "nodefile": "name the nodes with --nodelist",
    "ntasks-per-core": _BINDING,
    "ntasks-per-gpu": "write --ntasks-per-node",
    "ntasks-per-socket": _BINDING,
    "overcommit": "each task gets the CPUs that it asks for",
    "oversubscribe": "each task gets the CPUs that it asks for",
    "power": "there is no power management",
    "prefer": "write it as a wish: `placement.affinity` with a weight",
    "profile": "`hasched job show JOB.TASK` has what a task used",
    "propagate": "limits are the node's own",
    "reboot": "nodes aren't booted for jobs",
    "reservation": "a reservation names who may use it: it needs no option",
    "sockets-per-node": _BINDING,
    "spread-job": "write `placement.spread`",
    "switches": "near to each other by a label: `placement.affinity`",
    "thread-spec": _BINDING,
    "threads-per-core": _BINDING,
    "time-min": "a time limit isn't shortened: write the one that it needs into --time",
    "uid": "tasks run as the agent's user",
    "use-min-nodes": "a gang has the nodes that it asks for",
    "wait-all-nodes": "a gang starts when all its nodes are there",
}
OTHERWISE: dict[str, str] = {
    "error": "output is kept by the cluster: `hasched job logs --stderr`",
    "nice": "the order is by queue, priority and fair share: `--priority` raises it",
    "open-mode": "output is kept by the cluster: `hasched job logs`",
    "output": "output is kept by the cluster: `hasched job logs`",
    "wait": "an option of `hasched job submit`",
}
# What `--mail-type` is among the events that a notification may be about.
MAIL_EVENTS: dict[str, tuple[str, ...]] = {
    "NONE": (),
    "BEGIN": ("job.started",),
    "END": ("job.succeeded", "job.failed", "job.cancelled"),
    "FAIL": ("job.failed",),
    "TIME_LIMIT": ("job.failed",),
    "ALL": ("job.started", "job.succeeded", "job.failed", "job.cancelled"),
}
# Of the command sbatch, or of what is so here in any case.
OF_SBATCH_ITSELF = ("ignore-pbs", "parsable", "quiet", "requeue", "test-only", "verbose")
# Read together, in `_take_shape`.
OF_THE_SHAPE = (
    "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "cpus-per-gpu", "gpus", "gpus-per-node", "gpus-per-task",
    "gres", "mem", "mem-per-cpu", "mem-per-gpu",
)  # fmt: skip
