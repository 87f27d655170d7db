"""The lifecycle of tasks, jobs and nodes, and how an attempt can end."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class TaskState(IntEnum):
    """PENDING → SCHEDULED → RUNNING → one of the final states; a task that is tried again goes back to PENDING.

    The numbers are part of the snapshot format and never change; 9 stands there for a task in backoff.
    """

    PENDING = 0
    SCHEDULED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    TIMED_OUT = 5
    OUT_OF_MEMORY = 6
    CANCELLED = 7
    NODE_LOST = 8
    DEADLINE_EXCEEDED = 10

    @property
    def final(self) -> bool:
        return self >= TaskState.SUCCEEDED

    @property
    def active(self) -> bool:
        """Whether an attempt of it holds resources on a node."""
        return self in (TaskState.SCHEDULED, TaskState.RUNNING)


class EndKind(IntEnum):
    """How the agent saw an attempt end. The numbers are part of the log format and never change."""

    EXITED = 0  # `code` is the exit status
    SIGNALED = 1  # `code` is the signal's number
    TIMED_OUT = 2
    OUT_OF_MEMORY = 3
    STOPPED = 4  # killed because the managers or the lease asked for it
    LAUNCH_FAILED = 5  # never ran: no such file, no permission, no such directory
    LOST = 6  # the node rebooted or its supervisor died: how the process ended can't be known
    PREEMPTED = 7  # the managers took its room back; its task waits again. Never said by an agent
    GANG_RESTARTED = (
        8  # another task of its gang ended the gang's run, and all of it starts again. Never said by an agent
    )
    DEVICE_LOST = 9  # a device that it held has disappeared: the node's fault, not the task's


class NodeState(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # heartbeats are late: keeps its work, gets no more
    DISCONNECTED = "disconnected"  # silent beyond node_grace: its attempts are lost


class OnDisconnect(StrEnum):
    RUN_ON = "run_on"  # the task goes on; a rescheduled twin is fenced by its attempt number
    STOP = "stop"  # the agent kills the task before its lease ends: never two at once


class ConditionKind(StrEnum):
    """What a job may wait for, by the words that Slurm has for it."""

    AFTEROK = "afterok"  # the other has succeeded
    AFTERNOTOK = "afternotok"  # it has ended otherwise
    AFTERANY = "afterany"  # it has ended
    AFTER = "after"  # it has started, or ended without; and so long ago
    AFTERCORR = "aftercorr"  # each task for the one of the same index: it has succeeded
    SINGLETON = "singleton"  # all earlier ones of the same name and user have ended


class OnBrokenDependency(StrEnum):
    """What becomes of a job whose dependency can't be met any more."""

    CANCEL = "cancel"  # it ends as CANCELLED
    WAIT = "wait"  # it stays, until somebody cancels it or gives it another dependency


class RestartPolicy(StrEnum):
    NEVER = "never"
    ON_FAILURE = "on_failure"


class BackoffKind(StrEnum):
    LINEAR = "linear"  # initial, then initial more each time
    EXPONENTIAL = "exponential"  # initial, then `multiplier` times as long each time


class WarningSignal(StrEnum):
    """What a task can be warned with before it is preempted."""

    CONT = "CONT"
    HUP = "HUP"
    INT = "INT"
    QUIT = "QUIT"
    TERM = "TERM"
    USR1 = "USR1"
    USR2 = "USR2"
    WINCH = "WINCH"


class PlacementPolicy(StrEnum):
    BIN_PACK = "bin_pack"
    SPREAD = "spread"
    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"  # as bin_pack, what is scarce counting more


class GpuLocality(StrEnum):
    """How near to each other the GPUs of a task should be, as far as that can be had."""

    ANY = "any"
    SAME_NUMA = "same_numa"  # on one NUMA node
    NVLINK = "nvlink"  # joined by NVLink


class TaintEffect(StrEnum):
    NO_START = "no_start"  # only jobs that tolerate it start there
    AVOID = "avoid"  # others start there where nothing else will do
