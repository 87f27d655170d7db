"""Searches: room for one gang, looked for and taken in steps, and the plan that comes of it.

What was found so far is reserved on the nodes, so nobody else takes it between two steps; nothing is proposed before all of it
is there. Nodes may change meanwhile, and so may the gang: at the end both are looked at again, and if the nodes don't keep
what was taken the search begins anew, a few times at most. Then the gang stands aside until something has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from hasched.model.ids import JobId, NodeId, TaskIndex
from hasched.model.spec import Resources
from hasched.scheduler.line import WaitingClass
from hasched.scheduler.mosaics import STEP, Steps
from hasched.scheduler.rooms import GangShape, Part, Rooms
from hasched.statemachine.commands import PlaceGang, Placement
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.rules.gangs import ports_in_use
from hasched.statemachine.state import State

GANG_PORTS = range(29_400, 30_000)  # at which rank 0 is met, unless the managers' configuration says otherwise
MOST_TRIES = 3
NODES_A_STEP = 64  # for which a part of the plan is written


class GangFlight:
    """A gang on its way: what is reserved for it on each node, and how many tasks it has."""

    __slots__ = ("command", "left", "size")

    def __init__(self, command: PlaceGang, left: dict[NodeId, list[tuple[Resources, int]]], size: int) -> None:
        self.command = command
        self.left = left
        self.size = size

    def tasks_on(self, node_id: NodeId) -> int:
        return sum(tasks for _, tasks in self.left.get(node_id, ()))


class Asked(NamedTuple):
    """A gang, how large it is to be, and whether it still waits to be; `free_port` finds one on the node of rank 0, or 0."""

    job_id: JobId
    size: int
    waits: Callable[[], bool]
    free_port: Callable[[Job, Node], int]


class Search:
    """`steps` go on with it, to a flight or to nothing; `taken` is what it holds on the way."""

    def __init__(self, state: State, waiting: WaitingClass, rooms: Rooms, asked: Asked) -> None:
        self.waiting = waiting
        self.asked = asked
        self.moot = False  # the gang doesn't wait any more, or not to be so large
        self.unlucky = False  # there was room, and each time some of it went again
        self._state = state
        self.rooms = rooms
        self._taken: list[Part] = []
        self.steps = self._run()

    def _run(self) -> Steps[GangFlight | None]:
        state, rooms, taken = self._state, self.rooms, self._taken
        for _ in range(MOST_TRIES):
            if not (yield from rooms.choose(self.asked.size, state, taken)):
                return None
            flight = yield from self._write()
            self.moot = not self.asked.waits()
            if flight is None or self.moot:
                yield from rooms.give_back(taken)
                return None
            if rooms.keeps(taken, state.now_ms):
                return flight
            yield from rooms.give_back(taken)
            while not rooms.complete:
                rooms.build(state.now_ms)
                yield STEP
            rooms.catch_up(state.now_ms)
        self.unlucky = True
        return None

    def give_up(self) -> None:
        """At once: what was taken is free again."""
        self.steps.close()
        for _ in self.rooms.give_back(self._taken):
            pass

    def _write(self) -> Steps[GangFlight | None]:
        """The plan. Ranks follow each other on a node as far as they can, and the node of rank 0 comes first."""
        job, shape = self._state.jobs.get(self.asked.job_id), self.rooms.shape
        if job is None or job.gang is None:
            return None
        indices: dict[NodeId, list[TaskIndex]] = {}
        left: dict[NodeId, list[tuple[Resources, int]]] = {}
        starts = _starts_of(shape)
        pending = job.pending_indices()
        for number, (slot, part, tasks, _) in enumerate(sorted(self._taken, key=lambda each: each.part), 1):
            here = indices.setdefault(slot.node_id, [])
            if job.is_gang:
                here += range(starts[part], starts[part] + tasks)
                starts[part] += tasks
            else:
                here += islice(pending, tasks)
            left.setdefault(slot.node_id, []).append((shape.parts[part][0], tasks))
            if not number % NODES_A_STEP:
                yield STEP
        placements: list[Placement] = []
        for node_id, ranks in indices.items():
            placements.append(Placement(job.id, node_id, tuple(sorted(ranks))))
            if not len(placements) % NODES_A_STEP:
                yield STEP
        placements = [each for each in placements if each.indices]
        placements.sort(key=lambda each: each.indices[0])
        command = PlaceGang(job_id=job.id, placements=tuple(placements))
        if job.is_gang:
            node = self._state.nodes.get(placements[0].node_id)
            port = self.asked.free_port(job, node) if node is not None else 0
            if not port:
                return None
            command = PlaceGang(job_id=job.id, placements=tuple(placements), port=port)
        return GangFlight(command, left, sum(part.tasks for part in self._taken))


def free_port(state: State, job: Job, node: Node, flying: dict[int, None], ports: range) -> int:
    """One of the range that no other gang has there; 0 if there is none. Neighbours in time get different ones."""
    used = ports_in_use(state, node) | flying
    first = job.id % len(ports)
    return next((port for port in (*ports[first:], *ports[:first]) if port not in used), 0)


def _starts_of(shape: GangShape) -> list[int]:
    """The first rank of each part."""
    starts = [0]
    for _, count in shape.parts:
        starts.append(starts[-1] + count)
    return starts
