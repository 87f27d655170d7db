"""Nodes by class: alike in what they have in all, pool, taints, GPUs and whether they are in service, whatever runs on them.

What thousands of nodes lack for a task is told in a few lines: by class, and within one by what is lacking (`groups.py`). The
class of a node is worked out once for each inventory and change of state, and what is free on it once for each change of that,
so that a question costs only the look at the sums (`members.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.facts import GpuClass
from hasched.model.ids import NodeId
from hasched.model.spec import DEFAULT_POOL, Resources
from hasched.scheduler.explain.members import Members
from hasched.statemachine.changes import NodeChanges
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MOST_EXACT = 4_096  # inventories of which the class is remembered
FOLLOW_SLICE = 500  # nodes
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
    """The nodes by class, kept from one question to the next. Belongs to one manager; shared by all questions."""

    def __init__(self) -> None:
        self._changes = NodeChanges()  # of the state whose nodes these are
        self._clear()

    def _clear(self) -> None:
        self._version = 0  # of the changes, up to which nodes are as they were
        self._missing: dict[NodeId, None] = {}  # nodes that are to be looked at
        self._known: dict[NodeId, tuple[object, object, object, int, Members]] = {}
        self._classes: dict[tuple[object, ...], Members] = {}
        self._exact: dict[tuple[object, ...], Members] = {}  # of nodes that were met, before amounts are rounded

    def follow(self, state: State) -> Iterator[None]:
        """Take in what has changed since, a slice at each step. At the end nothing is missing, if nothing happens meanwhile."""
        while self._take_note(state):
            for _ in range(min(FOLLOW_SLICE, len(self._missing))):
                self._put(state, self._missing.popitem()[0])
            yield

    def _take_note(self, state: State) -> bool:
        """Whether there is anything to look at."""
        changes = state.node_changes
        if self._changes is not changes:
            self._clear()
            self._changes, self._version = changes, changes.version
            self._missing = dict.fromkeys(state.nodes)
        if self._version != changes.version:
            self._missing.update(dict.fromkeys(changes.since(self._version)))
            self._version = changes.version
        if not self._missing and len(self._known) > len(state.nodes):  # some are gone
            self._missing = dict.fromkeys(node_id for node_id in self._known if node_id not in state.nodes)
        return bool(self._missing)

    def members(self, state: State) -> list[Members]:
        """Every class that has nodes, that of the oldest node first."""
        for _ in self.follow(state):
            pass
        found = [members for members in self._classes.values() if members.nodes]
        found.sort(key=lambda members: members.first_number)
        return found

    def of(self, node: Node) -> NodeClass:
        """That of a node as it was when they were last followed."""
        return self._known[node.id][4].node_class

    def _put(self, state: State, node_id: NodeId) -> None:
        node, known = state.nodes.get(node_id), self._known.get(node_id)
        if node is not None and known is not None:
            info, control, health, _, members = known
            # `draining` becomes `drained` when the last attempt ends, with nothing else changed: both are one class
            if info is node.info and control is node.control and health is node.state:
                members.put(node, same=True)
                return
        if known is not None:
            del self._known[node_id]
            known[4].drop(known[3])
        if node is not None:
            members = self._find(node)
            members.put(node, same=False)
            self._known[node_id] = (node.info, node.control, node.state, node.number, members)

    def _find(self, node: Node) -> Members:
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

    def _classify(self, node: Node) -> Members:
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
            found = self._classes[alike] = Members(NodeClass(total, facts.pool, taints, facts.gpus, status))
        return found


def _rounded(amount: int) -> int:
    surplus = amount.bit_length() - _BITS
    return amount >> surplus << surplus if surplus > 0 else amount
