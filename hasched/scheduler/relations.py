"""Relations: where the tasks of a job may run as to where tasks run already, of others and its own.

`near` to some, `apart` from some, and its own in `spread`. What they are judged by is a tally: how many tasks of the jobs that
are meant run on each node, and at each value of a label, those on their way counted. Tallies are kept for as long as something
waits that is judged by them, and are current from the applied events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from hasched.model.facts import NodeFacts
from hasched.model.ids import JobId, NodeId
from hasched.model.spec import JobSelector
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

TALLY_SLICE = 200  # nodes that a new tally takes in at once
WHOLE_WEIGHT = 100  # a wish of this weight counts as much as the difference between a full and an empty node


class RelationKind(Enum):
    NEAR = "near"
    APART = "apart"
    SPREAD = "spread"


class Whose(NamedTuple):
    """The jobs whose tasks are counted: those of a namespace that a selector means, or one."""

    namespace: str
    selector: JobSelector
    job_id: JobId = 0  # not 0: this one alone

    def means(self, job: Job) -> bool:
        if self.job_id:
            return job.id == self.job_id
        return job.namespace == self.namespace and self.selector.selects(job.name, job.labels)


class Relation(NamedTuple):
    """`place` is the label whose equal values are one place, empty for the node itself. `weight` 0: it must hold."""

    kind: RelationKind
    whose: Whose
    place: str
    weight: int
    max_skew: int = 0
    itself: bool = False  # whether the job is one of those that are meant


def relations_of(job: Job) -> tuple[Relation, ...]:
    """What the job's rules say of other tasks. A job of one task stands in no relation to itself."""
    rules = job.placement
    if rules is None or not (rules.near or rules.apart or rules.spread):
        return ()
    found = []
    for kind, affinities in ((RelationKind.NEAR, rules.near), (RelationKind.APART, rules.apart)):
        for each in affinities:
            itself = each.jobs.means_itself
            if itself and job.count == 1:
                continue
            whose = Whose(job.namespace, each.jobs, job.id if itself else 0)
            found.append(Relation(kind, whose, each.within, each.weight, itself=whose.means(job)))
    if job.count > 1:
        own = Whose(job.namespace, JobSelector(), job.id)
        found += [
            Relation(RelationKind.SPREAD, own, each.label, each.weight, each.max_skew, True) for each in rules.spread
        ]
    return tuple(found)


class Tally:
    """How many tasks of certain jobs run, or are on their way, on each node and at each value of the labels asked for."""

    __slots__ = ("by_label", "counts", "lowered", "missing", "total", "users", "version", "whose")

    def __init__(self, whose: Whose, node_ids: Iterable[NodeId]) -> None:
        self.whose = whose
        self.counts: dict[NodeId, int] = {}
        self.by_label: dict[str, dict[str, int]] = {}
        self.total = 0
        self.version = 0  # rises with every change,
        self.lowered = 0  # and this with those that took something away
        self.missing = dict.fromkeys(node_ids)  # not counted yet
        self.users = 0

    def add(self, facts: NodeFacts, tasks: int) -> None:
        """So many more, or fewer, on a node."""
        _add(self.counts, facts.node_id, tasks)
        self.total += tasks
        for label, values in self.by_label.items():
            value = facts.labels.get(label)
            if value is not None:
                _add(values, value, tasks)
        self.version += 1
        self.lowered += tasks < 0

    def at(self, relation: Relation, facts: NodeFacts) -> int | None:
        """How many there are at the node's place; None if it has none."""
        if not relation.place:
            return self.counts.get(facts.node_id, 0)
        value = facts.labels.get(relation.place)
        return None if value is None else self.by_label[relation.place].get(value, 0)


def _add(table: dict[str, int], key: str, tasks: int) -> None:
    left = table.get(key, 0) + tasks
    if left:
        table[key] = left
    else:
        table.pop(key, None)


class Tallies:
    """Every tally, each once. `on_their_way` yields what was proposed and isn't in the state yet: (job, node, tasks)."""

    def __init__(self, on_their_way: Callable[[], Iterator[tuple[JobId, NodeId, int]]]) -> None:
        self._on_their_way = on_their_way
        self._state = State()
        self._tallies: dict[Whose, Tally] = {}

    def __bool__(self) -> bool:
        return bool(self._tallies)

    def follow(self, state: State) -> None:
        """This is the state that is counted."""
        self._state = state

    def hold(self, relation: Relation) -> Tally:
        """The tally that a relation is judged by; begun, if nobody needed it so far."""
        tally = self._tallies.get(relation.whose)
        if tally is None:
            tally = self._tallies[relation.whose] = Tally(relation.whose, self._state.nodes)
        if relation.place and relation.place not in tally.by_label:
            tally.by_label[relation.place] = {}
            self._count_by_label(tally)
        tally.users += 1
        return tally

    def release(self, relation: Relation) -> None:
        tally = self._tallies[relation.whose]
        tally.users -= 1
        if not tally.users:
            del self._tallies[relation.whose]

    def build(self, tally: Tally) -> int:
        """Count on some of the nodes that are missing. Returns how many attempts and nodes were looked at."""
        state, looks = self._state, 0
        means: dict[JobId, bool] = {}
        flying: dict[NodeId, list[tuple[JobId, int]]] = {}
        for job_id, node_id, tasks in self._on_their_way():
            flying.setdefault(node_id, []).append((job_id, tasks))
        while tally.missing and looks < TALLY_SLICE:
            node_id, _ = tally.missing.popitem()
            node = state.nodes.get(node_id)
            if node is None:
                continue
            held = [(job_id, 1) for job_id, _ in node.attempts]
            tasks = 0
            for job_id, number in (*held, *flying.get(node_id, ())):
                looks += 1
                if job_id not in means:
                    job = state.jobs.get(job_id)
                    means[job_id] = job is not None and tally.whose.means(job)
                tasks += number if means[job_id] else 0
            if tasks:
                tally.add(node.facts, tasks)
            looks += 1
        return looks

    def change(self, job: Job, node_id: NodeId, tasks: int) -> bool:
        """So many tasks of a job more, or fewer, on a node. Whether a tally counts them."""
        node = self._state.nodes.get(node_id)
        if node is None:
            return False
        changed = False
        for whose, tally in self._tallies.items():
            if node_id not in tally.missing and whose.means(job):
                tally.add(node.facts, tasks)
                changed = True
        return changed

    def count_again(self) -> None:
        """Something has ended of which it can't be told any more what it was."""
        for whose, tally in list(self._tallies.items()):
            anew = Tally(whose, self._state.nodes)
            tally.counts, tally.total, tally.missing = anew.counts, anew.total, anew.missing
            for values in tally.by_label.values():
                values.clear()
            tally.version += 1
            tally.lowered += 1

    def node_changed(self, node_id: NodeId) -> None:
        """The node is new or gone, or its labels may be others."""
        for tally in self._tallies.values():
            if node_id not in self._state.nodes:
                tally.missing.pop(node_id, None)
                tally.total -= tally.counts.pop(node_id, 0)
            if tally.by_label:
                self._count_by_label(tally)
            tally.version += 1
            tally.lowered += 1

    def _count_by_label(self, tally: Tally) -> None:
        for label, values in tally.by_label.items():
            values.clear()
            for node_id, tasks in tally.counts.items():
                value = self._state.nodes[node_id].facts.labels.get(label)
                if value is not None:
                    _add(values, value, tasks)


# ── Judging ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def holds(relation: Relation, here: int | None, total: int, floor: int) -> bool:
    """Whether one more task may start at a place where `here` are; None: the node has no such place.

    `total` are all that the relation counts, `floor` the number at the place that has the fewest.
    """
    match relation.kind:
        case RelationKind.NEAR:
            return here is not None and (here > 0 or (relation.itself and total == 0))
        case RelationKind.APART:
            return not here
        case RelationKind.SPREAD:
            return here is not None and here + 1 - floor <= relation.max_skew


def penalty(relation: Relation, here: int | None, total: int, floor: int) -> float:
    """How much worse a place is by a wish, in the unit of scores."""
    weight = relation.weight / WHOLE_WEIGHT
    if relation.kind is RelationKind.SPREAD and here is not None:
        return weight * (here - floor) / relation.max_skew
    return 0.0 if holds(relation, here, total, floor) else weight
