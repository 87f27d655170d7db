"""Waiting jobs by equivalence class: the same priority, queue and request means the same answer to "does it fit?"."""

from __future__ import annotations

import heapq
from typing import NamedTuple

from hasched.model.ids import JobId
from hasched.model.spec import Resources
from hasched.statemachine.job import Job


class ClassKey(NamedTuple):
    priority: int
    queue: str
    resources: Resources


class WaitingClass:
    """The jobs of one class, by id. `known_full`: nothing of it fits anywhere but on nodes that grew since."""

    __slots__ = ("_heap", "_members", "key", "known_full", "rank")

    def __init__(self, key: ClassKey) -> None:
        self.key = key
        self.known_full = False
        self.rank: tuple[int, int] | None = None  # its place in line, None while it is not in line
        self._heap: list[JobId] = []
        self._members: set[JobId] = set()

    def add(self, job_id: JobId) -> bool:
        """Whether the job wasn't there yet."""
        if job_id in self._members:
            return False
        self._members.add(job_id)
        heapq.heappush(self._heap, job_id)
        return True

    @property
    def first(self) -> JobId | None:
        return self._heap[0] if self._heap else None

    def drop_first(self) -> None:
        self._members.discard(heapq.heappop(self._heap))

    def __len__(self) -> int:
        return len(self._heap)


class Line:
    """Every class with waiting jobs: those to be tried stand in line, by priority and then by their first job's id;
    those that are known to fit nowhere stand aside until a node grows."""

    def __init__(self) -> None:
        self._classes: dict[ClassKey, WaitingClass] = {}
        self._aside: dict[ClassKey, WaitingClass] = {}
        self._line: list[tuple[int, int, ClassKey]] = []

    def add(self, job: Job) -> None:
        key = ClassKey(job.priority, job.queue, job.resources)
        waiting = self._classes.get(key)
        if waiting is None:
            waiting = self._classes[key] = WaitingClass(key)
        if waiting.add(job.id) and key not in self._aside:
            self.enter(waiting)

    def enter(self, waiting: WaitingClass) -> None:
        """Put a class in line where its first job belongs; an empty one is forgotten."""
        first = waiting.first
        if first is None:
            waiting.rank = None
            self._classes.pop(waiting.key, None)
            return
        rank = (-waiting.key.priority, first)
        if waiting.rank is None or rank < waiting.rank:
            waiting.rank = rank
            heapq.heappush(self._line, (*rank, waiting.key))

    def next(self) -> WaitingClass | None:
        """Take the first class out of the line."""
        while self._line:
            *rank, key = heapq.heappop(self._line)
            waiting = self._classes.get(key)
            if waiting is not None and waiting.rank == tuple(rank):
                waiting.rank = None
                return waiting
        return None

    def is_next(self, waiting: WaitingClass) -> bool:
        """Whether a class that is out of line would come first if it entered now."""
        first = waiting.first
        return first is not None and (not self._line or (-waiting.key.priority, first) < self._line[0][:2])

    def set_aside(self, waiting: WaitingClass) -> None:
        """It fits nowhere: don't try it again before a node grows."""
        waiting.known_full = True
        self._aside[waiting.key] = waiting

    def call_back(self) -> None:
        """A node grew: every class may be tried again, there."""
        aside, self._aside = self._aside, {}
        for waiting in aside.values():
            self.enter(waiting)

    def __bool__(self) -> bool:
        return bool(self._line)
