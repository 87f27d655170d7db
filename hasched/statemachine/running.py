"""What runs, counted by all that caps may count it by, and by all that fair share charges for.

It follows from jobs: left out of snapshots, kept current with every start and end. So to put a cap, or fair share, costs no
look at what runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from hasched.model.policy import Cap, CapSubject
from hasched.model.spec import Resources

GroupKey: TypeAlias = tuple[
    str, str, bool, str, tuple[str, ...] | None, tuple[tuple[str, int], ...] | None
]  # as in Group
ChargedKey: TypeAlias = tuple[str, str, str, int, int, int]  # queue, namespace, user; CPU, memory and GPUs of a task


class Running:
    """`subjects`: running tasks of each name, user and tag, and units of each semaphore, by namespace. `charged`: tasks."""

    __slots__ = ("charged", "subjects")

    def __init__(self) -> None:
        self.subjects: dict[tuple[CapSubject, str], dict[str, int]] = {}
        self.charged: dict[ChargedKey, int] = {}

    def change(self, group: GroupKey, tasks: int) -> None:
        """So many more tasks of a group run."""
        namespace = group[0]
        for subject, value, units in counted_for(group):
            key = (subject, value)
            counts = self.subjects.get(key)
            if counts is None:
                counts = self.subjects[key] = {}
            left = counts.get(namespace, 0) + units * tasks
            if left:
                counts[namespace] = left
            else:
                del counts[namespace]
                if not counts:
                    del self.subjects[key]

    def charge(self, queue: str, account: tuple[str, str], request: Resources, tasks: int) -> None:
        """So many more tasks run, each with this request."""
        key = (queue, *account, request.cpu_milli, request.memory_bytes, request.gpus)
        left = self.charged.get(key, 0) + tasks
        if left:
            self.charged[key] = left
        else:
            del self.charged[key]

    def used(self, cap: Cap, subject: CapSubject, value: str) -> int:
        """How much of a cap is used by one name, user, tag or semaphore."""
        counts = self.subjects.get((subject, value))
        if counts is None:
            return 0
        return counts.get(cap.namespace, 0) if cap.namespace else sum(counts.values())


def counted_for(group: GroupKey) -> Iterator[tuple[CapSubject, str, int]]:
    """What a task of the group counts for, and for how much."""
    _, user, _, name, tags, semaphores = group
    yield CapSubject.NAME, name, 1
    yield CapSubject.USER, user, 1
    for tag in tags or ():
        yield CapSubject.TAG, tag, 1
    for semaphore, units in semaphores or ():
        yield CapSubject.SEMAPHORE, semaphore, units
