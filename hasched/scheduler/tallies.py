"""Tallies: how many tasks of certain jobs run, or are on their way, on each node and at each value of a label.

They are kept for as long as something waits that is judged by them, and are current from the applied events. A change costs
a look at the tallies that mean its job, however many others there are; and each says which places it concerned, so that who
is judged by it looks at those again and at no others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeAlias

from hasched.model.facts import NodeFacts
from hasched.model.ids import JobId, NodeId
from hasched.scheduler.shapes import Shape
from hasched.statemachine.census import Census, Sites
from hasched.statemachine.job import Job
from hasched.statemachine.relations import Relation, Whose
from hasched.statemachine.state import State

TALLY_SLICE = 200  # nodes that a new tally takes in at once
SITE_LOOKS = 4  # to see whether a node is a place for some rules costs as much as so many looks
FEW = 1_000  # active tasks of one job: they are counted by the job, and not by what runs on each node

Value: TypeAlias = tuple[str, str]  # of a label: its name first


class Tally:
    """`epoch` rises when everything was counted anew."""

    __slots__ = ("_facts", "by_label", "changed", "counts", "epoch", "missing", "total", "users", "version", "whose")

    def __init__(self, whose: Whose, node_ids: Iterable[NodeId]) -> None:
        self.whose = whose
        self.counts: dict[NodeId, int] = {}
        self.by_label: dict[str, dict[str, int]] = {}
        self.total = 0
        self.version = 0  # rises with every change
        self.epoch = 0
        self.changed: dict[Value, int] = {}  # with the version of its last change, in that order
        self.missing = dict.fromkeys(node_ids)  # not counted yet
        self.users: dict[Shape | None, int] = {}  # who is judged by it, by how many relations
        self._facts: dict[NodeId, NodeFacts] = {}  # of those that are counted, as they were counted

    def add(self, facts: NodeFacts, tasks: int) -> None:
        """So many more, or fewer, on a node."""
        facts = self._facts.setdefault(facts.node_id, facts)
        _add(self.counts, facts.node_id, tasks)
        if facts.node_id not in self.counts:
            del self._facts[facts.node_id]
        self.total += tasks
        self.version += 1
        self._add_at_labels(facts, tasks)

    def at(self, relation: Relation, facts: NodeFacts) -> int | None:
        """How many there are at the node's place; None if it has none."""
        if not relation.place:
            return self.counts.get(facts.node_id, 0)
        value = facts.labels.get(relation.place)
        return None if value is None else self.by_label[relation.place].get(value, 0)

    def since(self, version: int) -> Iterator[Value]:
        """The values of labels at which something changed after `version`, the latest first."""
        for value in reversed(self.changed):
            if self.changed[value] <= version:
                return
            yield value

    def move(self, node_id: NodeId, facts: NodeFacts | None) -> None:
        """The node is another one now, or gone."""
        before = self._facts.pop(node_id, None)
        if before is None:
            return
        tasks = self.counts[node_id]
        self.version += 1
        self._add_at_labels(before, -tasks)
        if facts is None:
            del self.counts[node_id]
            self.total -= tasks
        else:
            self._facts[node_id] = facts
            self._add_at_labels(facts, tasks)

    def count_by(self, label: str) -> None:
        """Count at the values of a label, too."""
        values = self.by_label[label] = {}
        for node_id, tasks in self.counts.items():
            value = self._facts[node_id].labels.get(label)
            if value is not None:
                _add(values, value, tasks)

    def clear(self, node_ids: Iterable[NodeId]) -> None:
        """Count all of it again."""
        self.missing = dict.fromkeys(node_ids)
        self.counts.clear()
        self.changed.clear()
        self._facts.clear()
        self.total = 0
        self.version += 1
        self.epoch += 1
        for values in self.by_label.values():
            values.clear()

    def _add_at_labels(self, facts: NodeFacts, tasks: int) -> None:
        for label, values in self.by_label.items():
            value = facts.labels.get(label)
            if value is not None:
                _add(values, value, tasks)
                self.changed.pop((label, value), None)
                self.changed[label, value] = self.version


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
        self._found: dict[Hashable, dict[Whose, Tally]] = {}  # by what a job has that is meant
        self.stirred: dict[Shape, None] = {}  # whose tallies have changed since somebody last cleared it

    def __bool__(self) -> bool:
        return bool(self._tallies)

    def follow(self, state: State) -> None:
        """This is the state that is counted."""
        self._state = state

    def hold(self, relation: Relation, user: Shape | None = None) -> Tally:
        """The tally that a relation is judged by; begun, if nobody needed it so far."""
        whose = relation.whose
        tally = self._tallies.get(whose)
        if tally is None:
            job = self._state.jobs.get(whose.job_id)
            at_once = job is not None and job.active <= FEW
            tally = self._tallies[whose] = Tally(whose, () if at_once else self._state.nodes)
            self._found.setdefault(_handle(whose), {})[whose] = tally
            if job is not None and at_once:
                self._count_job(tally, job)
        if relation.place and relation.place not in tally.by_label:
            tally.count_by(relation.place)
        tally.users[user] = tally.users.get(user, 0) + 1
        return tally

    def sites(self, shape: Shape, label: str) -> Sites:
        """The places over which a spread is judged; while some are missing, `build_sites` goes on with them."""
        return self._state.neighbours.begin_sites(self._state, shape.rules, label)

    def build_sites(self, sites: Sites) -> int:
        """Returns the looks it took."""
        return sites.build(self._state.nodes, TALLY_SLICE) * SITE_LOOKS

    def census(self, relation: Relation) -> Census:
        """What the state will judge the relation by when a plan is applied; `build_census` goes on with it."""
        return self._state.neighbours.begin_census(self._state, relation)

    def build_census(self, census: Census) -> int:
        """Returns the looks it took."""
        return census.build(self._state.nodes, self._state.jobs, TALLY_SLICE)

    def release(self, relation: Relation, user: Shape | None = None) -> None:
        whose = relation.whose
        tally = self._tallies[whose]
        tally.users[user] -= 1
        if tally.users[user]:
            return
        del tally.users[user]
        if user is not None:
            self.stirred.pop(user, None)
        if not tally.users:
            del self._tallies[whose]
            found = self._found[_handle(whose)]
            del found[whose]
            if not found:
                del self._found[_handle(whose)]

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

    def _count_job(self, tally: Tally, job: Job) -> None:
        """All of it at once: that of one job."""
        tasks: dict[NodeId, int] = {}
        for active in (job.active_attempts or {}).values():
            tasks[active.node_id] = tasks.get(active.node_id, 0) + 1
        for job_id, node_id, number in self._on_their_way():
            if job_id == job.id:
                tasks[node_id] = tasks.get(node_id, 0) + number
        for node_id, number in tasks.items():
            node = self._state.nodes.get(node_id)
            if node is not None:
                tally.add(node.facts, number)

    def change(self, job: Job, node_id: NodeId, tasks: int) -> None:
        """So many tasks of a job more, or fewer, on a node."""
        node = self._state.nodes.get(node_id)
        if node is None:
            return
        for handle in _handles_of(job):
            for whose, tally in self._found.get(handle, {}).items():
                if node_id not in tally.missing and whose.means(job):
                    tally.add(node.facts, tasks)
                    self._stir(tally)

    def _stir(self, tally: Tally) -> None:
        for user in tally.users:
            if user is not None:
                self.stirred[user] = None

    def count_again(self) -> None:
        """Something has ended of which it can't be told any more what it was."""
        for tally in self._tallies.values():
            tally.clear(self._state.nodes)
            self._stir(tally)

    def node_changed(self, node_id: NodeId) -> None:
        """The node is new or gone, or its labels may be others."""
        node = self._state.nodes.get(node_id)
        for tally in self._tallies.values():
            if node is None:
                tally.missing.pop(node_id, None)
            tally.move(node_id, node.facts if node is not None else None)
            self._stir(tally)


def _handle(whose: Whose) -> Hashable:
    """What every job has that is meant."""
    if whose.job_id:
        return whose.job_id
    selector = whose.selector
    return whose.namespace, selector.name or selector.labels[:1]


def _handles_of(job: Job) -> Iterator[Hashable]:
    yield job.id
    yield job.namespace, job.name
    for label in (job.labels or {}).items():
        yield job.namespace, (label,)
