"""Keeping: CPU and memory that free GPUs keep from tasks which ask for no GPU.

A GPU without cores beside it is of no use to anybody. So on a node that has GPUs free, tasks without GPUs get what is left once
each of them has its part: what the policy `gpu_room/default` says or, as long as it says nothing, what the greediest job with
GPUs that runs asks for beside one. In that case nothing is kept before a third of the cluster's GPUs is in use (and until four
fifths are free again), and never more than three quarters of a node: so tasks without GPUs always get on.

It is advice, as all of the planner's: the state machine doesn't know of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from hasched.model.ids import JobId, NodeId
from hasched.model.policy import THE_GPU_ROOM, GpuRoom
from hasched.model.spec import Resources
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State

BUSY, IDLE = 2, 4  # so many GPUs free for each in use, at most: from then on, and until there are more


class Kept(NamedTuple):
    """Beside each free GPU. `yields`: nobody has said so, and who could never run beside it may have it."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    yields: bool = False

    def on(self, total: Resources) -> Kept:
        """On a node: never more than a GPU's share of it, or three quarters of that."""
        cpu_milli, memory_bytes = total.cpu_milli // total.gpus, total.memory_bytes // total.gpus
        if self.yields:
            cpu_milli, memory_bytes = cpu_milli * 3 // 4, memory_bytes * 3 // 4
        return Kept(min(self.cpu_milli, cpu_milli), min(self.memory_bytes, memory_bytes), self.yields)

    def gives_way(self, request: Resources, total: Resources) -> bool:
        """Whether a task without GPUs could never run on a node while all of its GPUs keep so much."""
        if not self.yields or request.gpus or not total.gpus:
            return False
        cpu_milli, memory_bytes, _ = self.on(total)
        return (
            request.cpu_milli > total.cpu_milli - cpu_milli * total.gpus
            or request.memory_bytes > total.memory_bytes - memory_bytes * total.gpus
        )

    def leaves(self, request: Resources, total: Resources, free: tuple[int, int, int], most: int) -> int:
        """For how many tasks without GPUs a node has room where so much CPU, memory and GPUs are free, `most` at most.

        Asked of all nodes in a row.
        """
        free_cpu_milli, free_memory_bytes, free_gpus = free
        gpus, yields = total.gpus, self.yields
        if asked := request.cpu_milli:
            share = total.cpu_milli // gpus
            room = (free_cpu_milli - min(self.cpu_milli, share * 3 // 4 if yields else share) * free_gpus) // asked
            most = room if room < most else most
        if asked := request.memory_bytes:
            share = total.memory_bytes // gpus
            room = (
                free_memory_bytes - min(self.memory_bytes, share * 3 // 4 if yields else share) * free_gpus
            ) // asked
            most = room if room < most else most
        return most if most > 0 else 0

    def beyond(self, request: Resources, total: Resources) -> Resources:
        """What a task with GPUs asks for beyond what these keep for it."""
        cpu_milli, memory_bytes, _ = self.on(total)
        return msgspec.structs.replace(
            request,
            cpu_milli=max(request.cpu_milli - cpu_milli * request.gpus, 0),
            memory_bytes=max(request.memory_bytes - memory_bytes * request.gpus, 0),
        )


NOTHING = Kept()


def said_by(policy: GpuRoom) -> Kept | None:
    """What a policy says is kept, which every manager knows; None: what runs decides."""
    if policy.cpu_milli is None and policy.memory_bytes is None:
        return None
    return Kept(policy.cpu_milli or 0, policy.memory_bytes or 0)


class Keeping:
    """What is kept now: `kept`. It is told of jobs with tasks that start and end, and of nodes that change."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, Kept] = {}  # those that run with GPUs; what each asks for beside one
        self._cpu_milli = _Largest()
        self._memory_bytes = _Largest()
        self._nodes: dict[NodeId, tuple[int, int]] = {}  # those with GPUs: how many are free, and in use
        self._free = self._used = 0
        self._busy = False  # whether so many GPUs are in use that the others may soon be
        self._policy = GpuRoom()

    def follow(self, state: State) -> None:
        """The policy may be another one."""
        self._policy = find_policy(state.policies, GpuRoom, THE_GPU_ROOM) or GpuRoom()

    def see(self, job: Job) -> None:
        """Tasks of it have started or ended."""
        if not (job.resources.gpus or job.placement is not None or job.gang is not None):
            return
        if not job.active:
            self.forget(job.id)
            return
        if job.id in self._jobs:
            return
        kept = _beside_a_gpu(job)
        if kept is not None:
            self._jobs[job.id] = kept
            self._cpu_milli.add(kept.cpu_milli)
            self._memory_bytes.add(kept.memory_bytes)

    def forget(self, job_id: JobId) -> None:
        kept = self._jobs.pop(job_id, None)
        if kept is not None:
            self._cpu_milli.remove(kept.cpu_milli)
            self._memory_bytes.remove(kept.memory_bytes)

    def count(self, node: Node, usable: bool) -> None:
        """What of the node's GPUs is in use. One that takes no work has none free."""
        gpus, used = node.info.resources.gpus, node.allocated_gpus
        if gpus or node.id in self._nodes:
            now = (max(gpus - used, 0) if usable else 0, used)
            if self._nodes.get(node.id) == now:
                return
            self.forget_node(node.id)
            self._nodes[node.id] = now
            free, used = now
            self._free, self._used = self._free + free, self._used + used

    def forget_node(self, node_id: NodeId) -> None:
        free, used = self._nodes.pop(node_id, (0, 0))
        self._free, self._used = self._free - free, self._used - used

    @property
    def kept(self) -> Kept:
        policy = self._policy
        if not policy.enabled:
            return NOTHING
        if (said := said_by(policy)) is not None:
            return said
        if not self._jobs or not self._used:
            return NOTHING
        self._busy = self._free <= self._used * (IDLE if self._busy else BUSY)
        if not self._busy:
            return NOTHING
        return Kept(self._cpu_milli.value, self._memory_bytes.value, True)


def _beside_a_gpu(job: Job) -> Kept | None:
    """The most that one of its tasks asks for beside a GPU; None if none wants any."""
    asked = [
        Kept(request.cpu_milli // request.gpus, request.memory_bytes // request.gpus)
        for request in _requests_of(job)
        if request.gpus
    ]
    if not asked:
        return None
    return Kept(max(each.cpu_milli for each in asked), max(each.memory_bytes for each in asked))


def _requests_of(job: Job) -> Iterator[Resources]:
    yield job.resources
    if job.placement is not None:
        yield from job.placement.any_of
    if job.gang is not None:
        yield from (group.resources for group in job.gang.groups)


class _Largest:
    """The largest of numbers that come and go; 0 while there is none."""

    def __init__(self) -> None:
        self._times: dict[int, int] = {}
        self._heap: list[int] = []  # their negatives, and of some that are gone

    def add(self, number: int) -> None:
        times = self._times.get(number, 0)
        self._times[number] = times + 1
        if not times:
            heapq.heappush(self._heap, -number)
            if len(self._heap) > 2 * len(self._times) + 8:
                self._heap = [-each for each in sorted(self._times, reverse=True)]

    def remove(self, number: int) -> None:
        self._times[number] -= 1
        if not self._times[number]:
            del self._times[number]

    @property
    def value(self) -> int:
        heap = self._heap
        while heap and -heap[0] not in self._times:
            heapq.heappop(heap)
        return -heap[0] if heap else 0
