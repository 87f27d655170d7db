"""Why a job waits: the closed list of reason codes.

Every answer about something that doesn't start (`hasched job show`, the API, plans and explanations) names one of these,
with a sentence of numbers beside it. `docs/reasons.md` has a section for each; a test holds the two lists together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class ReasonCode(StrEnum):
    """A code, which never changes, and its meaning in one line."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    # The job itself
    SUSPENDED = "suspended", "The job is suspended and starts nothing until it is resumed."
    BACKOFF = "backoff", "A failed task waits before its next attempt."
    NOT_BEFORE = "not_before", "The job may not start before a time that it names."
    DEPENDENCY = "dependency", "What the job waits for of other jobs is not so yet, or can't be any more."
    DEADLINE = "deadline", "The job can't end before its deadline any more."
    MAX_RUNNING = "max_running", "As many of the job's own tasks run as its `max_running` allows."
    GANG = "gang", "The tasks of a gang start together or not at all, and there is no room for all of them at once."
    WAITING_TURN = "waiting_turn", "It fits somewhere and starts as soon as its turn comes."

    # What its owners may use
    QUOTA = "quota", "A quota of its namespace or user is used up."
    QUEUE_QUOTA = "queue_quota", "As many tasks of its queue run as the queue's `max_running` allows."
    CAP = "cap", "As many tasks of its name, user or tag run as a cap allows."
    SEMAPHORE = "semaphore", "A semaphore that it takes is taken by others."

    # The nodes, as far as they are in service
    NO_NODES = "no_nodes", "No node is healthy and takes work."
    NODE_UNHEALTHY = "node_unhealthy", "A node's heartbeats are late, or it is disconnected."
    NODE_UNREACHABLE = "node_unreachable", "A node has no connection to the leading manager now, or wants no work."
    NODE_CORDONED = "node_cordoned", "A node is cordoned: it keeps its work and gets no more."
    NODE_DRAINING = "node_draining", "A node is being drained."
    NODE_QUARANTINED = "node_quarantined", "A node failed to launch so many tasks that it gets no more."
    RESERVED = "reserved", "A node is held for a job that stands before this one, or left to it until it is whole."
    KEPT_FOR_GPUS = "kept_for_gpus", "A node keeps CPU or memory for its free GPUs, and the job asks for none."
    RESERVATION = "reservation", "A node is reserved for others, or for maintenance, before this job would end."

    # Where it may run
    POOL = "pool", "A node is in another pool."
    CONSTRAINT = "constraint", "A node does not meet a constraint of the job."
    TAINT = "taint", "A node has a taint that the job does not tolerate."
    AFFINITY = "affinity", "A node does not run what the job must be near."
    ANTI_AFFINITY = "anti_affinity", "A node runs what the job must be apart from."
    SPREAD = "spread", "One more task there would exceed the skew that the job allows over a label."
    FILTER = "filter", "A filter that was added to hasched refuses a node."

    # What the nodes have
    UNSATISFIABLE = "unsatisfiable", "No healthy node has so much in all."
    INSUFFICIENT_RESOURCES = "insufficient_resources", "No node has enough of everything free now."
    INSUFFICIENT_CPU = "insufficient_cpu", "Too little CPU is free."
    INSUFFICIENT_MEMORY = "insufficient_memory", "Too little memory is free."
    INSUFFICIENT_DISK = "insufficient_disk", "Too little disk is free."
    INSUFFICIENT_GPUS = "insufficient_gpus", "Too few GPUs are free."
    INSUFFICIENT_COUNTABLE = "insufficient_countable", "Too little of a named resource, such as a licence, is free."
    INSUFFICIENT_SLOTS = "insufficient_slots", "A node runs as many tasks as one node may."
    GPU_MODEL = "gpu_model", "A node has too few GPUs of the model asked for."
    GPU_MEMORY = "gpu_memory", "A node has too few GPUs with so much memory."
    DEVICE_UNHEALTHY = "device_unhealthy", "A device of a node is unhealthy and is not handed out."
