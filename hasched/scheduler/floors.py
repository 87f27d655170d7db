"""Floors: how many tasks there are at the place that has the fewest of them, kept current place by place."""

from __future__ import annotations

from collections.abc import Hashable


class Floor:
    __slots__ = ("_levels", "_of")

    def __init__(self) -> None:
        self._of: dict[Hashable, int] = {}
        self._levels: dict[int, int] = {}  # how many places have so many tasks

    def put(self, place: Hashable, tasks: int) -> None:
        """There is such a place, with so many tasks."""
        before = self._of.get(place)
        if before == tasks:
            return
        if before is not None:
            self._lower(before)
        self._of[place] = tasks
        self._levels[tasks] = self._levels.get(tasks, 0) + 1

    def __contains__(self, place: Hashable) -> bool:
        return place in self._of

    def clear(self) -> None:
        self._of.clear()
        self._levels.clear()

    @property
    def fewest(self) -> int:
        """0 if there is no place."""
        return min(self._levels, default=0)

    def _lower(self, tasks: int) -> None:
        left = self._levels[tasks] - 1
        if left:
            self._levels[tasks] = left
        else:
            del self._levels[tasks]
