"""Wholes: nodes that tasks with a few GPUs have begun are left to those who wait for all GPUs of one.

Small tasks that come one after the other would keep such a node begun for ever. So as many begun nodes as tasks wait that want
one whole, and stand before a small one, are left to it only where that doesn't matter: if it surely ends before the last
task with GPUs there does, or nobody can say when that one ends. Else it goes where nobody wants a whole node (to smaller nodes
above all), or waits until it stands before the others. They are finitely many, and each starts in the end (`holds`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hasched.model.ids import JobId, NodeId
from hasched.model.spec import Resources
from hasched.scheduler.candidates import Candidates
from hasched.scheduler.line import Line
from hasched.scheduler.order import Rank
from hasched.scheduler.shapes import NEVER_MS, Shape
from hasched.scheduler.slots import Slot
from hasched.scheduler.usage import gpus_end_of
from hasched.scheduler.windows import Windows
from hasched.statemachine.state import State

MOST_LEFT = 16  # nodes that are left, however many tasks want one
MOST_SHAPES = 64  # that want whole nodes are counted, those that stand aside the longest,
FIRST_JOBS = 4  # with the tasks of so many jobs of each
LOOKS_A_SHAPE = 8


class _Waiting(NamedTuple):
    """Tasks that fit nowhere and ask for so many GPUs as some nodes have."""

    rank: Rank
    tasks: int
    job_id: JobId
    shape: Shape


class Wholes:
    """`refused`: the shapes of which something waits though a begun node has room."""

    def __init__(self, line: Line, candidates: Candidates, windows: Windows) -> None:
        self._line = line
        self._candidates = candidates
        self._windows = windows
        self._state = State()
        self._version = -1  # of the line, when `_waiting` was made
        self._waiting: dict[int, list[_Waiting]] = {}  # by GPUs
        self._others = False  # whether it has become another since somebody was let in
        self._ends: dict[Slot, tuple[int, int]] = {}  # versions of slots, and when all with GPUs have ended there
        self.refused: dict[Shape, None] = {}
        self.looks = 0  # that it has cost, since somebody last set it to 0

    def follow(self, state: State) -> None:
        """What is asked from now on is asked of this state."""
        self._state = state

    @property
    def changed(self) -> bool:
        """Whether those who were refused may be let in by now."""
        return bool(self.refused) and (self._others or self._version != self._line.version)

    def let_in(self) -> dict[Shape, None]:
        """Who is to be looked at again: others want whole nodes than when they were refused."""
        if not self.changed:
            return {}
        self._count()  # which may have been done meanwhile, by whoever asks
        if not self._others:
            return {}
        self._others = False
        again, self.refused = self.refused, {}
        return again

    def _count(self) -> None:
        line = self._line
        if self._version == line.version:
            return
        before, self._waiting = self._waiting, {}
        self._version, counted = line.version, 0
        for shape in line.aside:
            gpus = shape.requests[0].gpus
            if gpus < 2 or shape.relations or (rank := line.rank_of(shape)) is None:
                continue
            jobs = [
                job for job_id in line.firsts(shape, FIRST_JOBS) if (job := self._state.jobs.get(job_id)) is not None
            ]
            if jobs:
                counted += 1
                tasks = min(sum(job.eligible for job in jobs), MOST_LEFT)
                self._waiting.setdefault(gpus, []).append(_Waiting(rank, tasks, jobs[0].id, shape))
            if counted == MOST_SHAPES:
                break
        self._others = self._others or before != self._waiting
        self.looks += len(line.aside) // LOOKS_A_SHAPE + counted * LOOKS_A_SHAPE

    def leaver(self, shape: Shape, request: Resources, rank: Rank) -> Callable[[Slot], int] | None:
        """For a node with room for the request: how many others like it have to be left before this one may be taken.

        None if none has to.
        """
        if not self._line.aside or not request.gpus or shape.relations:
            return None
        self._count()
        if not any(gpus > request.gpus and any(each.rank < rank for each in of) for gpus, of in self._waiting.items()):
            return None

        def left(slot: Slot) -> int:
            wanted = self._wanted(slot, request, rank)
            if not wanted:
                return 0
            end_ms = self._end_ms(slot)
            return wanted if self._state.now_ms + shape.limit_ms > end_ms and end_ms < NEVER_MS else 0

        return left

    def _wanted(self, slot: Slot, request: Resources, rank: Rank) -> int:
        """How many tasks that stand before this place want all GPUs of a node that has been begun."""
        gpus = slot.total.gpus
        if request.gpus >= gpus or slot.gpus == gpus:
            return 0
        tasks = 0
        for each in self._waiting.get(gpus, ()):
            if each.rank < rank and self._suits(slot, each.shape):
                tasks += each.tasks
                if tasks >= MOST_LEFT:
                    return MOST_LEFT
        return tasks

    def wants(self, rank: Rank, request: Resources, slot: Slot) -> bool:
        """Whether the node isn't for who asks for so much, as one that stands before it wants it whole."""
        self._count()
        return self._wanted(slot, request, rank) > 0

    def _suits(self, slot: Slot, shape: Shape) -> bool:
        """Whether a task of the shape could ever run on the node."""
        view = self._candidates.cursors(shape)[0].view
        return (
            slot.could_hold(shape.requests[0])
            and view.admits(slot)
            and self._windows.closes_ms(slot.node_id, shape.access) == NEVER_MS
        )

    def _end_ms(self, slot: Slot) -> int:
        version, end_ms = self._ends.get(slot, (-1, 0))
        if version != slot.version:
            end_ms = gpus_end_of(self._state, slot.node)
            if slot.reserved_gpus:
                end_ms = max(end_ms, slot.reserved_until_ms)
            self._ends[slot] = (slot.version, end_ms)
        return end_ms

    def forget_slot(self, slot: Slot) -> None:
        self._ends.pop(slot, None)

    def nodes(self, slots: dict[NodeId, Slot]) -> dict[NodeId, JobId]:
        """The nodes that are left, and the first of those for whom."""
        self._count()
        found: dict[NodeId, JobId] = {}
        for slot in slots.values() if self._waiting else ():
            if 0 < slot.gpus < slot.total.gpus and slot.usable and not slot.held:
                fit = [each for each in self._waiting.get(slot.total.gpus, ()) if self._suits(slot, each.shape)]
                if fit and self._end_ms(slot) < NEVER_MS:
                    found[slot.node_id] = min(fit).job_id
        return found
