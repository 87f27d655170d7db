"""Members: the nodes of one class, and what is free on each, as columns.

A column is a list with one number for each node, in the order of the nodes' numbers. What is asked of ten thousand nodes at once
is asked of a column, which takes a tenth of the time that it takes to go to each node.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hasched.model.constraints import compile_constraint
from hasched.model.facts import gpu_class_of
from hasched.model.spec import Resources
from hasched.scheduler.explain.marks import CPU, DISK, FIRST_COUNTABLE, GPUS, MEMORY, SLOTS
from hasched.scheduler.slots import MAX_ATTEMPTS_PER_NODE
from hasched.statemachine.node import Node

if TYPE_CHECKING:
    from hasched.scheduler.explain.classes import NodeClass

MOST_MARKS = 64  # requests of which it is kept who has too little, until something changes
MOST_VERDICTS = 64  # constraints of which it is kept which nodes meet them


class Members:
    __slots__ = (
        "_labels",
        "_marks",
        "_numbers",
        "_verdicts",
        "attempts",
        "cpu_milli",
        "disk_bytes",
        "gpus",
        "ids",
        "memory_bytes",
        "node_class",
        "nodes",
    )

    def __init__(self, node_class: NodeClass) -> None:
        self.node_class = node_class
        self.nodes: list[Node] = []
        self.ids: list[str] = []
        self.cpu_milli: list[int] = []  # free on each, like the others; negative where less is there than is allocated
        self.memory_bytes: list[int] = []
        self.disk_bytes: list[int] = []
        self.gpus: list[int] = []
        self.attempts: list[int] = []  # that run
        self._numbers: list[int] = []
        self._labels: dict[str, list[str | None]] = {}
        self._marks: dict[Resources, list[int]] = {}
        self._verdicts: dict[str, list[bool]] = {}

    def put(self, node: Node, *, same: bool) -> None:
        """Take a node in, or what is free on it now. `same`: what it is has not changed since it was put here."""
        place = bisect_left(self._numbers, node.number)
        self._marks.clear()
        if not same:
            self._labels.clear()
            self._verdicts.clear()
        if place == len(self._numbers) or self._numbers[place] != node.number:
            self._numbers.insert(place, node.number)
            self.ids.insert(place, node.id)
            self.nodes.insert(place, node)
            for column in self._columns:
                column.insert(place, 0)
        total = node.info.resources
        self.nodes[place] = node
        self.cpu_milli[place] = total.cpu_milli - node.allocated_cpu_milli
        self.memory_bytes[place] = total.memory_bytes - node.allocated_memory_bytes
        self.disk_bytes[place] = total.disk_bytes - node.allocated_disk_bytes
        self.gpus[place] = total.gpus - node.allocated_gpus
        self.attempts[place] = len(node.attempts)

    def drop(self, number: int) -> None:
        """The node is of another class now, or gone."""
        place = bisect_left(self._numbers, number)
        self._labels.clear()
        self._marks.clear()
        self._verdicts.clear()
        del self.ids[place], self.nodes[place]
        for column in (self._numbers, *self._columns):
            del column[place]

    @property
    def _columns(self) -> tuple[list[int], ...]:
        return self.cpu_milli, self.memory_bytes, self.disk_bytes, self.gpus, self.attempts

    @property
    def first_number(self) -> int:
        return self._numbers[0]

    def labels(self, label: str) -> list[str | None]:
        """The value of a label on each."""
        values = self._labels.get(label)
        if values is None:
            values = self._labels[label] = [node.info.labels.get(label) for node in self.nodes]
        return values

    def meeting(self, constraint: str) -> list[bool]:
        """Which of them meet a constraint."""
        verdicts = self._verdicts.get(constraint)
        if verdicts is None:
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            meets = compile_constraint(constraint)
            verdicts = self._verdicts[constraint] = [meets(node.facts) for node in self.nodes]
        return verdicts

    def marks(self, request: Resources) -> list[int]:
        """What each has too little of for one task that asks for so much, as `mark_shortages` says it of one node."""
        marks = self._marks.get(request)
        if marks is None:
            if len(self._marks) >= MOST_MARKS:
                self._marks.clear()
            marks = self._marks[request] = self._mark(request)
        return marks

    def _mark(self, request: Resources) -> list[int]:
        short = [(CPU, self.cpu_milli, request.cpu_milli), (MEMORY, self.memory_bytes, request.memory_bytes)]
        if request.disk_bytes:
            short.append((DISK, self.disk_bytes, request.disk_bytes))
        if request.gpus:
            short.append((GPUS, self._free_gpus(request), request.gpus))
        if max(self.attempts) >= MAX_ATTEMPTS_PER_NODE:
            short.append((SLOTS, [MAX_ATTEMPTS_PER_NODE - each for each in self.attempts], 1))
        offered = dict(self.node_class.total.countables)
        for number, (name, asked) in enumerate(request.countables, FIRST_COUNTABLE):
            amount = offered.get(name, 0)
            free = [amount - node.allocated_countables.get(name, 0) for node in self.nodes]
            short.append((1 << number, free, asked))
        everywhere = sum(bit for bit, free, asked in short if max(free) < asked)
        marks = [everywhere] * len(self.nodes)
        for bit, free, asked in short:
            if not everywhere & bit and min(free) < asked:
                marks = [mark + bit * (left < asked) for mark, left in zip(marks, free, strict=True)]
        return marks

    def _free_gpus(self, request: Resources) -> list[int]:
        """Of the kind that the request would get."""
        kinds = self.node_class.gpus
        if len(kinds) > 1:
            return [node.free_gpus(request) for node in self.nodes]
        if request.picks_gpus and gpu_class_of(kinds, request) < 0:
            return [0] * len(self.nodes)
        return self.gpus
