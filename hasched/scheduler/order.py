"""Order: which of the waiting classes comes first.

Queue priority, then (with fair share) the queue's share, then the job's priority, then the account's share, then age:

- A queue with a larger priority goes first, always.
- `ageing` turns priority into time: a point of it is worth so many milliseconds of waiting, so a job's level is when it was
  submitted less what its priority is worth, and never changes. **Nothing starves:** a job whose level is L can be passed only by
  jobs submitted before (L + 1 + the largest priority) * `ageing`, of which there are finitely many; what is submitted later
  has a larger level. Shares decide only among jobs of one level, which are as few. Without ageing a stream of jobs of a larger
  priority can hold up others for ever, as operators may want.
- Fair share orders accounts of one level by what they have used of what is their due (`shares.py`); usage falls with time
  and rises with work, so within a level no account is passed for ever.
- The older job: ids are given in the order of acceptance.

A rank may change while a class waits. The planner shows the order every applied entry, and everything that it puts on its
way. Ranks that grow are seen when their class is first in line; of those that fall the order names the accounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

from hasched.model.ids import JobId
from hasched.model.policy import FairShare, PolicyKind, Queue
from hasched.scheduler.shares import ShareKeys
from hasched.statemachine.apply import Applied
from hasched.statemachine.events import AttemptEnded, JobUpdated, PolicyChanged, PolicyDeleted, TasksScheduled
from hasched.statemachine.fair_share import THE_POLICY, rate_of
from hasched.statemachine.job import Job
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State

ANY_NUMBER = 2**31
IN_TURNS = 4  # tasks of one account in a row, while others of its level wait
_USED_BY = (TasksScheduled, AttemptEnded, JobUpdated)


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
    return RankGroup(job.priority, job.queue, Account(job.namespace, job.actor))


class Order(Protocol):
    def rebuild(self, state: State) -> None:
        """Start anew from the state, with nothing on its way."""

    def observe(self, state: State, applied: Applied) -> Iterable[Account] | None:
        """Take in an applied entry; accounts whose classes may have a smaller rank now. None: all may have."""

    def take(self, state: State, job: Job, tasks: int) -> None:
        """So many tasks are on their way now; negative: not any more."""

    def rank(self, group: RankGroup, first: JobId) -> Rank:
        """The place of a class whose first job is `first`. Among jobs of one group the smaller id comes first."""

    @property
    def burst(self) -> int:
        """How many tasks of a class may be placed before the order is asked again; more, where very many classes wait."""


class ByPriority:
    """The higher priority first, then the older job; whatever the policies say."""

    burst = ANY_NUMBER

    def rebuild(self, state: State) -> None:
        pass

    def observe(self, state: State, applied: Applied) -> Iterable[Account]:
        return ()

    def take(self, state: State, job: Job, tasks: int) -> None:
        pass

    def rank(self, group: RankGroup, first: JobId) -> Rank:
        return (-group.priority, first)


class ByPolicies:
    """As the cluster's policies say: queues, priorities, ageing and fair share."""

    def __init__(self) -> None:
        self._state = State()
        self._shares: ShareKeys | None = None
        self._ageing_ms = 0
        self._queues: dict[str, int] = {}  # their priorities, so that the smallest is the first; 0 is left out

    def rebuild(self, state: State) -> None:
        self._state = state
        self._queues = {
            name: -record.body.priority
            for name, record in state.policies[PolicyKind.QUEUE].items()
            if isinstance(record.body, Queue) and record.body.priority
        }
        policy = find_policy(state.policies, FairShare, THE_POLICY)
        self._ageing_ms = policy.ageing_ms if policy is not None else 0
        self._shares = ShareKeys(state, policy) if policy is not None and policy.enabled else None

    @property
    def burst(self) -> int:
        return ANY_NUMBER if self._shares is None else IN_TURNS

    def observe(self, state: State, applied: Applied) -> Iterable[Account] | None:
        self._state = state
        for event in applied.events:
            if isinstance(event, PolicyChanged | PolicyDeleted) and event.kind in (
                PolicyKind.QUEUE,
                PolicyKind.FAIR_SHARE,
            ):
                on_their_way = self._shares.on_their_way if self._shares is not None else {}
                self.rebuild(state)
                if self._shares is not None:
                    self._shares.on_their_way.update(on_their_way)
                return None
        shares = self._shares
        if shares is None:
            return ()
        for event in applied.events:
            if isinstance(event, _USED_BY) and (job := state.jobs.get(event.job_id)) is not None:
                shares.note(job.queue, (job.namespace, job.actor))
        return [Account(*user) for user in shares.refresh()]

    def take(self, state: State, job: Job, tasks: int) -> None:
        shares = self._shares
        if shares is not None and state.shares is not None:
            shares.take(job.queue, (job.namespace, job.actor), rate_of(job.resources, state.shares.charges) * tasks)

    def rank(self, group: RankGroup, first: JobId) -> Rank:
        level = -group.priority
        if self._ageing_ms:
            job = self._state.jobs.get(first)
            level += job.submitted_ms // self._ageing_ms if job is not None else 0
        queue = self._queues.get(group.queue, 0)
        shares = self._shares
        if shares is None:
            return (queue, level, first)
        return (queue, shares.of_queue(group.queue), level, *shares.of_account(group.account), first)
