"""Queues: a closed one takes no more jobs, and one with `max_running` runs no more tasks at once than that.

Nobody is stopped when a queue gets a smaller `max_running`, or a job that runs comes into it: nothing more starts until it runs
less.
"""

from __future__ import annotations

from hasched.model.policy import Queue, QueueState
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State

QUEUES_LIMIT_SINCE = 2  # the version of entries; before, a queue was an order and nothing else


def refuse_closed(state: State, name: str) -> Rejected | None:
    """The refusal of a job that would come into the queue, None if it may."""
    queue = find_policy(state.policies, Queue, name)
    if state.entry_version < QUEUES_LIMIT_SINCE or queue is None or queue.state is QueueState.OPEN:
        return None
    return Rejected(
        "queue_closed",
        f"queue {name} is closed and takes no more jobs",
        f"name another queue, or wait until it is opened (`hasched queue open {name}`)",
    )


def max_running_of(state: State, name: str) -> int:
    """How many tasks may run in the queue at once; 0: as many as there are."""
    queue = find_policy(state.policies, Queue, name)
    return 0 if queue is None else queue.max_running


def room_in(state: State, name: str, tasks: int) -> int:
    """How many of so many tasks the queue lets start now."""
    most = max_running_of(state, name)
    if state.entry_version < QUEUES_LIMIT_SINCE or not most:
        return tasks
    return max(0, min(tasks, most - state.usage.queues.get(name, 0)))
