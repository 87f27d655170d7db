"""The saves of the table of attempts that are under way, and what waits for each of them.

They are written in the order of their numbers, so the end of one is the end of all before it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from hasched.agent.events import Row, Save
from hasched.model.ids import AttemptId
from hasched.model.wire import AttemptEnded


class Saves:
    """Pure: it makes the instructions, and is told of their ends."""

    def __init__(self) -> None:
        self._number = 0
        self._adding: dict[int, list[AttemptId]] = {}  # by number of the save
        self._removing: dict[int, tuple[AttemptId, ...]] = {}
        self._unremoved: list[AttemptId] = []  # rows that a failed save was to remove
        self._forget_after: dict[int, list[AttemptId]] = {}

    @property
    def waiting(self) -> Iterable[list[AttemptId]]:
        """What the supervisor is to forget when saves are written."""
        return self._forget_after.values()

    def make(
        self,
        known: Container[AttemptId],
        *,
        added: Sequence[Row] = (),
        ended: Sequence[AttemptEnded] = (),
        removed: Sequence[AttemptId] = (),
        forget: Sequence[AttemptId] | None = None,
    ) -> Save:
        """The next one. It removes also what failed to be removed before, unless it is `known` again."""
        self._number += 1
        removing = (*(key for key in self._unremoved if key not in known), *removed)
        self._unremoved.clear()
        if removing:
            self._removing[self._number] = removing
        if added:
            self._adding[self._number] = [row.key for row in added]
        if forget is not None:
            self._forget_after[self._number] = list(forget)
        return Save(self._number, tuple(added), tuple(ended), removing)

    def written(self, number: int) -> tuple[list[AttemptId], list[AttemptId]]:
        """The rows that are on disk now, and what the supervisor may forget."""
        for done in [each for each in self._removing if each <= number]:
            del self._removing[done]
        return _take(self._adding, number), _take(self._forget_after, number)

    def failed(self, number: int) -> tuple[list[AttemptId], list[AttemptId]]:
        """The rows that never got there, and what was to be forgotten. A removal is part of the next save."""
        self._unremoved += _take(self._removing, number)
        return _take(self._adding, number), _take(self._forget_after, number)


def _take(waiting: dict[int, list[AttemptId]] | dict[int, tuple[AttemptId, ...]], number: int) -> list[AttemptId]:
    return [key for done in [each for each in waiting if each <= number] for key in waiting.pop(done)]
