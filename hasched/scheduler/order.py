"""Order: which of the waiting classes comes first.

A rank may change while a class waits (fair share: its account used something). The planner shows the order every applied
entry, and ranks anew the classes of the accounts that it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

from hasched.model.ids import JobId
from hasched.statemachine.apply import Applied
from hasched.statemachine.job import Job
from hasched.statemachine.state import State


class Account(NamedTuple):
    """Whose work it is: what fair share and quotas count by."""

    namespace: str
    user: str


class RankGroup(NamedTuple):
    """What jobs of one class share in the eyes of an order."""

    priority: int
    queue: str
    account: Account

    def holds(self, job: Job) -> bool:
        """Whether a job that was of this group still is: an update may have given it another priority or queue."""
        return job.priority == self.priority and job.queue == self.queue


Rank: TypeAlias = tuple[float, ...]  # the smallest is the first; it ends with the job's id, so no two are equal


def group_of(job: Job) -> RankGroup:
    return RankGroup(job.priority, job.queue, Account("default", job.actor))


class Order(Protocol):
    def rebuild(self, state: State) -> None:
        """Start anew from the state."""

    def observe(self, state: State, applied: Applied) -> Iterable[Account]:
        """Take in an applied entry; the accounts whose classes have another rank now."""

    def rank(self, group: RankGroup, first: JobId) -> Rank:
        """The place of a class whose first job is `first`. Among jobs of one group the smaller id comes first."""


class ByPriority:
    """The higher priority first, then the older job."""

    def rebuild(self, state: State) -> None:
        pass

    def observe(self, state: State, applied: Applied) -> Iterable[Account]:
        return ()

    def rank(self, group: RankGroup, first: JobId) -> Rank:
        return (-group.priority, first)
