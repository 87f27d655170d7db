"""Flights: what has been proposed and not yet been answered for by the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from hasched.model.ids import JobId, NodeId
from hasched.scheduler.shapes import Shape
from hasched.statemachine.commands import PlacePlan

Landing: TypeAlias = tuple[JobId, NodeId, int]  # the last says which of the job's alternative requests


class Flight:
    """A plan on its way: how many tasks of each (job, node, choice) the log has not answered for yet."""

    __slots__ = ("plan", "tasks")

    def __init__(self, plan: PlacePlan) -> None:
        self.plan = plan
        self.tasks: dict[Landing, int] = {}
        for p in plan.placements:
            landing = (p.job_id, p.node_id, p.choice)
            self.tasks[landing] = self.tasks.get(landing, 0) + len(p.indices)


class JobInFlight:
    """What is on its way for one job. Indices below `next_index` have been proposed, or were not eligible then."""

    __slots__ = ("limit_ms", "next_index", "shape", "tasks")

    def __init__(self, shape: Shape, limit_ms: int) -> None:
        self.shape = shape
        self.limit_ms = limit_ms  # how long after its start a task has surely ended
        self.tasks = 0
        self.next_index = 0


class Flights:
    def __init__(self) -> None:
        self.jobs: dict[JobId, JobInFlight] = {}
        self._flights: list[Flight] = []

    def depart(self, plan: PlacePlan) -> None:
        self._flights.append(Flight(plan))

    def arrive(self, key: Landing, tasks: int) -> Iterator[int]:
        """So many were scheduled: yields how many of them each flight had, the oldest first."""
        for flight in self._flights:
            found = min(tasks, flight.tasks.get(key, 0))
            if found:
                flight.tasks[key] -= found
                tasks -= found
                yield found

    def on_their_way(self) -> Iterator[tuple[JobId, NodeId, int]]:
        """What of each flight is still to come."""
        for flight in self._flights:
            for (job_id, node_id, _), tasks in flight.tasks.items():
                if tasks:
                    yield job_id, node_id, tasks

    def end(self, plan: PlacePlan) -> Iterator[tuple[Landing, int]]:
        """The plan has been decided: yields what of it was not scheduled."""
        flight = next(flight for flight in self._flights if flight.plan is plan)
        self._flights.remove(flight)
        for key, tasks in flight.tasks.items():
            if tasks:
                yield key, tasks
