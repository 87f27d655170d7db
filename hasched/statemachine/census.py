"""Census: how many tasks of certain jobs run at each place, and which places there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hasched.model.facts import NodeFacts
from hasched.model.ids import JobId, NodeId
from hasched.model.spec import PlacementRules
from hasched.model.units import MAX_INTEGER
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.relations import Whose


def place_of(label: str, facts: NodeFacts) -> str | None:
    """The value of a label, or the node itself where there is none; None: the node has no such place."""
    return facts.labels.get(label) if label else facts.node_id


class Sites:
    """The places at which rules allow tasks at all, with how many nodes that take work; `version` rises when they are others.

    Until nothing is `missing` it is being made; `dropped`: it isn't kept current any more.
    """

    __slots__ = ("_at", "_label", "_rules", "dropped", "missing", "nodes", "version")

    def __init__(self, rules: PlacementRules | None, label: str, nodes: Iterable[NodeId]) -> None:
        self._rules = rules
        self._label = label
        self._at: dict[NodeId, str] = {}
        self.nodes: dict[str, int] = {}
        self.version = 0
        self.missing = dict.fromkeys(nodes)
        self.dropped = False

    def build(self, nodes: Mapping[NodeId, Node], most: int = MAX_INTEGER) -> int:
        """Look at some of the nodes that are missing. Returns how many it were."""
        looks = 0
        while self.missing and looks < most:
            node_id, _ = self.missing.popitem()
            self.put(nodes[node_id])
            looks += 1
        return looks

    def put(self, node: Node) -> None:
        """The node is new, or another than it was."""
        if node.id in self.missing:
            return
        allowed = node.takes_work and node.admits(self._rules)
        place = place_of(self._label, node.facts) if allowed else None
        if place == self._at.get(node.id):
            return
        if node.id in self._at:
            self.drop(node.id)
        if place is not None:
            self._at[node.id] = place
            self.version += place not in self.nodes
            self.nodes[place] = self.nodes.get(place, 0) + 1

    def drop(self, node_id: NodeId) -> None:
        self.missing.pop(node_id, None)
        place = self._at.pop(node_id, None)
        if place is not None:
            self.nodes[place] -= 1
            if not self.nodes[place]:
                del self.nodes[place]
                self.version += 1


class _Level:
    """The lowest number at any site, and how many sites have it; kept while tasks come and go."""

    __slots__ = ("low", "sites", "version", "width")

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.version = sites.version
        self.low = self.width = 0  # no width: to be found anew

    def move(self, place: str, before: int, after: int) -> None:
        if not self.width or place not in self.sites.nodes:
            return
        if after < self.low:
            self.low, self.width = after, 1
        else:
            self.width += (after == self.low) - (before == self.low)

    def find(self, counts: dict[str, int]) -> int:
        if not self.width or self.version != self.sites.version:
            here = [counts.get(place, 0) for place in self.sites.nodes]
            self.version, self.low = self.sites.version, min(here, default=0)
            self.width = here.count(self.low)
        return self.low


class Census:
    """How many tasks of the jobs that are meant run on each node, and at each value of the labels asked for.

    Until no node is `missing` it is being made: what starts and ends on such a node is counted with all else there.
    """

    __slots__ = ("_facts", "_levels", "by_label", "missing", "total", "whose")

    def __init__(self, whose: Whose, nodes: Iterable[NodeId] = ()) -> None:
        self.whose = whose
        self.total = 0
        self.missing = dict.fromkeys(nodes)
        self.by_label: dict[str, dict[str, int]] = {"": {}}  # that without a name stands for the nodes
        self._facts: dict[NodeId, NodeFacts] = {}  # of nodes with any, as they were counted
        self._levels: dict[str, _Level] = {}  # by label, of the sites asked for last

    def build(self, nodes: Mapping[NodeId, Node], jobs: Mapping[JobId, Job], most: int = MAX_INTEGER) -> int:
        """Count on some of the nodes that are missing. Returns how many nodes and attempts were looked at."""
        means: dict[JobId, bool] = {}
        looks = 0
        while self.missing and looks < most:
            node_id, _ = self.missing.popitem()
            node, tasks = nodes[node_id], 0
            for job_id, _ in node.attempts:
                meant = means.get(job_id)
                if meant is None:
                    meant = means[job_id] = self.whose.means(jobs[job_id])
                tasks += meant
            if tasks:
                self.add(node.facts, tasks)
            looks += 1 + len(node.attempts)
        return looks

    def clear(self) -> None:
        """Nothing is counted, and nothing missing."""
        self.total = 0
        self.missing.clear()
        self._facts.clear()
        self._levels.clear()
        for counts in self.by_label.values():
            counts.clear()

    def add(self, facts: NodeFacts, tasks: int) -> None:
        """So many more, or fewer, on a node."""
        node_id = facts.node_id
        if node_id in self.missing:
            return
        self._count(self._facts.setdefault(node_id, facts), tasks)
        self.total += tasks
        if node_id not in self.by_label[""]:
            del self._facts[node_id]

    def move(self, facts: NodeFacts) -> None:
        """The labels of a node are others now."""
        before = self._facts.get(facts.node_id)
        if before is not None:
            tasks = self.by_label[""][facts.node_id]
            self._count(before, -tasks)
            self._count(facts, tasks)
            self._facts[facts.node_id] = facts

    def _count(self, facts: NodeFacts, tasks: int) -> None:
        for label, counts in self.by_label.items():
            place = place_of(label, facts)
            if place is None:
                continue
            before = counts.get(place, 0)
            after = before + tasks
            if after:
                counts[place] = after
            else:
                counts.pop(place, None)
            level = self._levels.get(label)
            if level is not None:
                level.move(place, before, after)

    def count_by(self, label: str) -> None:
        """Count at the values of a label, too."""
        counts: dict[str, int] = {}
        for node_id, tasks in self.by_label[""].items():
            place = place_of(label, self._facts[node_id])
            if place is not None:
                counts[place] = counts.get(place, 0) + tasks
        self.by_label[label] = counts

    def at(self, label: str, place: str | None) -> int | None:
        """How many there are at a place; None if it is none."""
        return None if place is None else self.by_label[label].get(place, 0)

    def lowest(self, label: str, sites: Sites) -> int:
        """How many there are at that of the sites which has the fewest."""
        level = self._levels.get(label)
        if level is None or level.sites is not sites:
            level = self._levels[label] = _Level(sites)
        return level.find(self.by_label[label])
