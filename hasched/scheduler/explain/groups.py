"""Groups: the nodes of one class that lack the same things for a task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from hasched.model.ids import NodeId
from hasched.model.spec import Resources
from hasched.scheduler.explain.classes import NodeClass
from hasched.scheduler.explain.lacks import Asker, Lacks, room_beside
from hasched.scheduler.explain.members import Members
from hasched.scheduler.keeping import NOTHING, Kept
from hasched.statemachine.node import Node

_T = TypeVar("_T")


class Signature(NamedTuple):
    """What the nodes of a group lack, without how much: of their class, each by itself, and the bits of the nearest request."""

    of_class: Lacks
    of_itself: Lacks
    choice: int
    mark: int

    @property
    def open(self) -> bool:
        """Whether nothing is lacking."""
        return not (self.of_class or self.of_itself or self.mark)


class Group:
    """Some of a class, `places` of its columns. There is at least one."""

    __slots__ = ("_columns", "_nodes", "_pick", "members", "places", "signature")

    def __init__(self, members: Members, places: Sequence[int], signature: Signature) -> None:
        self.members = members
        self.places = places
        self.signature = signature
        self._columns: dict[str, list[int]] = {}
        self._nodes: list[Node] | None = None
        self._pick: Callable[[Any], tuple[Any, ...]] | None = None

    def __len__(self) -> int:
        return len(self.places)

    @property
    def node_class(self) -> NodeClass:
        return self.members.node_class

    @property
    def first(self) -> Node:
        return self.members.nodes[self.places[0]]

    @property
    def nodes(self) -> list[Node]:
        if self._nodes is None:
            self._nodes = self._some(self.members.nodes)
        return self._nodes

    @property
    def ids(self) -> list[NodeId]:
        return self._some(self.members.ids)

    def places_by(self, label: str) -> Sequence[str | None]:
        """The value of a label on each node, or the node itself where there is none."""
        return self._some(self.members.labels(label)) if label else self.ids

    def find(self, request: Resources) -> list[Node]:
        """Those that may have room for one task that asks for so much."""
        marks = self._some(self.members.marks(request))
        return [node for node, mark in zip(self.nodes, marks, strict=True) if not mark]

    def rooms(self, request: Resources, most: int, kept: Kept = NOTHING) -> list[int]:
        """For how many such tasks each node has room beside what free GPUs keep, counted up to `most`."""
        marks = self._some(self.members.marks(request))
        rooms = [0 if mark else node.room_for(request, most) for node, mark in zip(self.nodes, marks, strict=True)]
        if kept == NOTHING or request.gpus or not self.first.total.gpus:
            return rooms
        return [room and room_beside(kept, request, node, room) for node, room in zip(self.nodes, rooms, strict=True)]

    def column(self, name: str, free: Callable[[Node], int]) -> list[int]:
        """What is free of a resource on each of the nodes, worked out once."""
        column = self._columns.get(name)
        if column is None:
            known = self._known(name)
            column = self._columns[name] = self._some(known) if known is not None else list(map(free, self.nodes))
        return column

    def _known(self, name: str) -> list[int] | None:
        members = self.members
        match name:
            case "cpu":
                return members.cpu_milli
            case "memory":
                return members.memory_bytes
            case "disk":
                return members.disk_bytes
            case "gpus" if len(members.node_class.gpus) < 2:  # then all of a node's are alike
                return members.gpus
        return None

    def _some(self, column: list[_T]) -> list[_T]:
        if len(column) == len(self.places):
            return column
        if self._pick is None:
            first = self.places[0]
            self._pick = itemgetter(first, *self.places)  # of one place alone it would make no tuple
        return list(self._pick(column)[1:])


def sort_nodes(classes: Iterable[Members], asker: Asker) -> list[Group]:
    """Every node by class and by what it lacks."""
    groups: list[Group] = []
    for members in classes:
        of_class = asker.lacks_of_class(members.nodes[0])
        choices, marks = asker.marks(members)
        found: dict[Signature, list[Sequence[int]]] = {}
        for some in _partition((choices, marks, *asker.columns(members))):
            first = some[0]
            of_itself = asker.lacks_of_itself(members.nodes[first])
            found.setdefault(Signature(of_class, of_itself, choices[first], marks[first]), []).append(some)
        for signature, parts in found.items():
            groups.append(Group(members, parts[0] if len(parts) == 1 else sorted(chain(*parts)), signature))
    return groups


def _partition(columns: Sequence[Sequence[object]]) -> Collection[Sequence[int]]:
    """The places at which all columns say the same, in ascending order."""
    varying = [column for column in columns if column.count(column[0]) < len(column)]
    rows: Iterable[object] = varying[0] if len(varying) == 1 else zip(*varying, strict=True)
    places: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        if row in places:
            places[row].append(place)
        else:
            places[row] = [place]
    return places.values() or (range(len(columns[0])),)
