"""Nodes by class: alike in what they have in all, pool, taints, GPUs and whether they are in service, whatever runs on them.

What thousands of nodes lack for a task is told in a few lines: by class, and within one by what is lacking. The class of a
node is worked out once for each inventory and change of state, so that a second question costs only the look at what is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from hasched.model.facts import GpuClass
from hasched.model.spec import DEFAULT_POOL, Resources
from hasched.scheduler.explain.lacks import Asker, Lacks
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

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


class NodeClasses:
    """Keeps the class of each node that it was asked about. Belongs to one manager; shared by all questions."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, object, object, NodeClass]] = {}
        self._classes: dict[tuple[object, ...], NodeClass] = {}

    def of(self, node: Node) -> NodeClass:
        known = self._known.get(node.id)
        # `draining` becomes `drained` when the last attempt ends, with nothing else changed: the class says draining for both
        if known is not None and known[0] is node.info and known[1] is node.control and known[2] is node.state:
            return known[3]
        found = self._classify(node)
        self._known[node.id] = (node.info, node.control, node.state, found)
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
    found: dict[tuple[object, ...], Group] = {}
    of_class: dict[NodeClass, Lacks] = {}
    class_of, mark_of = classes.of, asker.mark
    for node in nodes:
        node_class = class_of(node)
        choice, mark = mark_of(node)
        of_itself = asker.lacks_of_itself(node) if asker.looks_closer else ()
        key = (node_class, mark, choice, of_itself)
        group = found.get(key)
        if group is None:
            if node_class not in of_class:
                of_class[node_class] = asker.lacks_of_class(node)
            signature = Signature(of_class[node_class], of_itself, choice, mark)
            group = found[key] = Group(node_class, signature)
        group.nodes.append(node)
        if mark:  # while the node is at hand
            total = node.info.resources
            group.cpu_milli.append(total.cpu_milli - node.allocated_cpu_milli)
            group.memory_bytes.append(total.memory_bytes - node.allocated_memory_bytes)
    return list(found.values())


def _rounded(amount: int) -> int:
    surplus = amount.bit_length() - _BITS
    return amount >> surplus << surplus if surplus > 0 else amount
