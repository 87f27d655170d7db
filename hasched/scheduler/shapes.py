"""Shapes: everything that decides on which nodes one task fits.

Jobs with the same request and placement rules share one `Shape`, however many they are, of whichever queue and priority. So
what was found out for one of them ("these nodes, in this order", "nowhere") holds for all.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from hasched.model.spec import Resources
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node


class ShapeKey(NamedTuple):
    """What makes two shapes the same."""

    resources: Resources
    rules: Hashable


class Shape:
    """`rules` are what static placement rules a node has to meet; None means that any node will do."""

    __slots__ = ("key", "number", "resources", "rules")

    def __init__(self, key: ShapeKey, number: int) -> None:
        self.key = key
        self.number = number  # in the order of their first appearance
        self.resources = key.resources
        self.rules = key.rules

    def static_fit(self, node: Node) -> bool:
        """Whether a task may run on the node at all, by what doesn't change with its load. Asked once per node and change."""
        return True

    def preference(self, node: Node) -> float:
        """How much less the node suits than others by what doesn't change with its load: added to its score, 0 is best."""
        return 0.0


class Shapes:
    """Each shape once."""

    def __init__(self) -> None:
        self._shapes: dict[ShapeKey, Shape] = {}
        self._made = 0

    def of(self, job: Job) -> Shape:
        key = ShapeKey(job.resources, None)
        shape = self._shapes.get(key)
        if shape is None:
            self._made += 1
            shape = self._shapes[key] = Shape(key, self._made)
        return shape

    def forget(self, shape: Shape) -> None:
        """Nothing of this shape waits any more."""
        self._shapes.pop(shape.key, None)

    def __len__(self) -> int:
        return len(self._shapes)
