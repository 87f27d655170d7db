"""Nodes by class: alike in what they have in all, pool, taints, GPUs and whether they are in service, whatever runs on them.

What thousands of nodes lack for a task is told in a few lines: by class, and within one by what is lacking. The class of a
node is worked out once for each inventory and change of state, so that a second question costs only the look at what is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from operator import is_not, sub
from typing import Any, NamedTuple

from hasched.model.facts import GpuClass
from hasched.model.spec import DEFAULT_POOL, Resources
from hasched.scheduler.explain.lacks import Asker, Lacks
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MOST_EXACT = 4_096  # inventories of which the class is remembered
_BITS = 5  # by which two amounts are told apart: machines of one model differ by some kilobytes of memory


class NodeClass:
    """`total` is of the first node that was met. Classes are compared by identity: there is one object for each."""

    __slots__ = ("gpus", "pool", "status", "taints", "total")

    def __init__(
        self, total: Resources, pool: str, taints: tuple[str, ...], gpus: tuple[GpuClass, ...], status: str
    ) -> None:
        self.total = total
        self.pool = pool
        self.taints = taints
        self.gpus = gpus
        self.status = status

    @property
    def words(self) -> str:
        """What sets it apart, beside its amounts: `healthy,cordoned, pool gpu, taints gpu-only, 8 x A100`."""
        parts = [self.status]
        if self.pool != DEFAULT_POOL:
            parts.append(f"pool {self.pool}")
        if self.taints:
            parts.append(f"taints {' '.join(self.taints)}")
        parts += [f"{kind.number} x {kind.model}" for kind in self.gpus if kind.model]
        return ", ".join(parts)


class Members:
    """The nodes of one class, and what each has in all."""

    __slots__ = ("_totals", "node_class", "nodes")

    def __init__(self, node_class: NodeClass, nodes: list[Node]) -> None:
        self.node_class = node_class
        self.nodes = nodes
        totals = [node.info.resources for node in nodes]
        self._totals = [total.cpu_milli for total in totals], [total.memory_bytes for total in totals]

    def free(self) -> tuple[list[int], list[int]]:
        """CPUs and memory that are free on each."""
        cpus, memory = self._totals
        return (
            list(map(sub, cpus, [node.allocated_cpu_milli for node in self.nodes])),
            list(map(sub, memory, [node.allocated_memory_bytes for node in self.nodes])),
        )


class NodeClasses:
    """Keeps the class of each node that it was asked about. Belongs to one manager; shared by all questions."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, object, object, NodeClass]] = {}
        self._classes: dict[tuple[object, ...], NodeClass] = {}
        self._members: list[Members] = []
        self._seen: list[Node] = []  # of whom those are members,
        self._told: object = None  # and what decided it
        self._exact: dict[tuple[object, ...], NodeClass] = {}  # of nodes that were met, before amounts are rounded

    def of(self, node: Node) -> NodeClass:
        info, control, state = node.info, node.control, node.state
        known = self._known.get(node.id)
        # `draining` becomes `drained` when the last attempt ends, with nothing else changed: the class says draining for both
        if known is None or known[0] is not info or known[1] is not control or known[2] is not state:
            known = self._known[node.id] = (info, control, state, self._find(node))
        return known[3]

    def members(self, nodes: Iterable[Node]) -> list[Members]:
        """The nodes by class, each class once. Made anew only if something of what decides has changed."""
        seen = list(nodes)
        told = ([node.info for node in seen], [node.control for node in seen], [node.state for node in seen])
        if self._told != told or any(map(is_not, self._seen, seen)):
            of_class: dict[NodeClass, list[Node]] = {}
            for node in seen:
                of_class.setdefault(self.of(node), []).append(node)
            self._members = [Members(node_class, some) for node_class, some in of_class.items()]
            self._seen, self._told = seen, told
        return self._members

    def _find(self, node: Node) -> NodeClass:
        facts, control = node.facts, node.control
        kept_away = (
            ""
            if control.cordon is None and control.drain is None and control.quarantine is None
            else node.status.replace("drained", "draining")
        )
        exact = (facts.total, facts.pool, facts.taints, facts.gpus, node.state, kept_away)
        found = self._exact.get(exact)
        if found is None:
            if len(self._exact) >= MOST_EXACT:
                self._exact.clear()
            found = self._exact[exact] = self._classify(node)
        return found

    def forget_gone(self, state: State) -> None:
        if len(self._known) > len(state.nodes):
            self._known = {node_id: known for node_id, known in self._known.items() if node_id in state.nodes}

    def _classify(self, node: Node) -> NodeClass:
        facts, total = node.facts, node.info.resources
        taints = tuple(map(str, facts.taints))
        status = node.status.replace("drained", "draining")
        alike = (
            _rounded(total.cpu_milli),
            _rounded(total.memory_bytes),
            _rounded(total.disk_bytes),
            total.gpus,
            total.countables,
            facts.pool,
            taints,
            facts.gpus,
            status,
        )
        found = self._classes.get(alike)
        if found is None:
            found = self._classes[alike] = NodeClass(total, facts.pool, taints, facts.gpus, status)
        return found


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
    """Nodes of one class that lack the same things."""

    __slots__ = ("_columns", "cpu_milli", "memory_bytes", "node_class", "nodes", "signature")

    def __init__(self, node_class: NodeClass, signature: Signature) -> None:
        self.node_class = node_class
        self.signature = signature
        self.nodes: list[Node] = []
        self.cpu_milli: list[int] = []  # free on each, where anything is short
        self.memory_bytes: list[int] = []
        self._columns: dict[str, list[int]] = {"cpu": self.cpu_milli, "memory": self.memory_bytes}

    def column(self, name: str, free: Callable[[Node], int]) -> list[int]:
        """What is free of a resource on each of the nodes, worked out once; of a group whose nodes are short of something."""
        column = self._columns.get(name)
        if column is None and name == "gpus" and len(self.node_class.gpus) < 2:  # then all of a node's are alike
            column = [node.info.resources.gpus - node.allocated_gpus for node in self.nodes]
        elif column is None:
            column = list(map(free, self.nodes))
        self._columns[name] = column
        return column


def sort_nodes(nodes: Iterable[Node], asker: Asker, classes: NodeClasses) -> list[Group]:
    """Every node by class and by what it lacks."""
    groups: list[Group] = []
    for members in classes.members(nodes):
        of_class = asker.lacks_of_class(members.nodes[0])
        free = members.free()
        found = asker.marks(members.nodes, *free)
        numbers = asker.number_lacks(members.nodes)
        alike = any(numbers) or len(asker.requests) > 1
        keys: Sequence[Any] = list(zip(found, numbers, strict=True)) if alike else found
        for key in dict.fromkeys(keys):
            what, number = key if alike else (key, 0)
            choice, mark = what if len(asker.requests) > 1 else (0, what)
            chosen = [each == key for each in keys]
            group = Group(members.node_class, Signature(of_class, asker.lacks_of_number(number), choice, mark))
            group.nodes += compress(members.nodes, chosen)
            if mark:
                group.cpu_milli += compress(free[0], chosen)
                group.memory_bytes += compress(free[1], chosen)
            groups.append(group)
    return groups


def _rounded(amount: int) -> int:
    surplus = amount.bit_length() - _BITS
    return amount >> surplus << surplus if surplus > 0 else amount
