"""Neighbours: whether the relations of a job still hold, checked when a plan of its tasks is applied.

What they are judged by is counted from what runs, and kept current from then on by every task that starts or ends; so a
placement costs the same however much runs. To count is begun when a job is submitted that will be judged by it, and goes on bit
by bit (`go_on`); whatever is asked for before that has come to its end is counted at once. Nothing of it is part of the state: it
follows from what is there, and which of it is known at a time decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Protocol, TypeAlias

from hasched.model.ids import JobId, NodeId
from hasched.model.spec import PlacementRules
from hasched.statemachine.census import Census, Sites, place_of
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.relations import Relation, RelationKind, Whose, holds, relations_of
from hasched.statemachine.usage import Usage

RELATIONS_HELD_SINCE = 3  # the version of entries; before, they were the planner's best knowledge
MOST_CENSUSES = 256  # that are kept, the latest asked for,
MOST_SITES = 64  # and tables of places
MOST_KNOWN = 4096  # jobs of which it is kept who counts them
MOST_BEGUN = 8  # censuses at a time, for jobs that were submitted
FEW = 500  # running jobs, or tasks of them, that are counted at once
LOOKS_AT_ONCE = 2_000  # at nodes, and attempts on them
SITES_AT_ONCE = 1_000  # nodes that are put at their places

_NODE_ID = attrgetter("node_id")

Placed: TypeAlias = Sequence[tuple[Node, int]]  # so many tasks on each node


class Surroundings(Protocol):
    """What of the state relations are about."""

    @property
    def jobs(self) -> dict[JobId, Job]: ...
    @property
    def nodes(self) -> dict[NodeId, Node]: ...
    @property
    def usage(self) -> Usage: ...


class Neighbours:
    def __init__(self) -> None:
        self._censuses: dict[Whose, Census] = {}
        self._counted: dict[JobId, tuple[Census, ...]] = {}  # by which a job's tasks are
        self._sites: dict[tuple[PlacementRules | None, str], Sites] = {}
        self._begun: dict[Whose, None] = {}  # whose censuses are being made

    # What happens

    def change(self, job: Job, node: Node, tasks: int) -> None:
        """So many tasks of the job more, or fewer, run on a node."""
        if not self._censuses:
            return
        counted = self._counted.get(job.id)
        if counted is None:
            if len(self._counted) >= MOST_KNOWN:
                self._counted.clear()
            found = (census for whose, census in self._censuses.items() if whose.means(job))
            counted = self._counted[job.id] = tuple(found)
        for census in counted:
            census.add(node.facts, tasks)

    def node_changed(self, node: Node, *, relabelled: bool = False) -> None:
        """The node is new, or takes work where it didn't, or not any more. `relabelled`: its labels are others."""
        for sites in self._sites.values():
            sites.put(node)
        if relabelled:
            for census in self._censuses.values():
                census.move(node.facts)

    def node_gone(self, node: Node) -> None:
        for sites in self._sites.values():
            sites.drop(node.id)
        for census in self._censuses.values():
            census.missing.pop(node.id, None)

    def expect(self, state: Surroundings, job: Job) -> None:
        """A job was submitted: begin to count those others whom its tasks will be judged by."""
        for relation in relations_of(job):
            if not relation.weight and not relation.whose.job_id and len(self._begun) < MOST_BEGUN:
                self.begin_census(state, relation)

    @property
    def behind(self) -> bool:
        """Whether something is left to be counted."""
        return bool(self._begun)

    def go_on(self, state: Surroundings) -> None:
        """Count some of it."""
        whose = next(iter(self._begun), None)
        census = self._censuses.get(whose) if whose is not None else None
        if census is not None:
            census.build(state.nodes, state.jobs, LOOKS_AT_ONCE)
        if whose is not None and (census is None or not census.missing):
            del self._begun[whose]

    def prepare(self, state: Surroundings, job: Job) -> Iterator[None]:
        """Count what the relations of a job are judged by, some at each step; what others push out is left for later."""
        relations = [each for each in relations_of(job) if not each.weight]
        for relation in relations:
            for _ in range(1 + len(state.nodes)):
                census = self.begin_census(state, relation)
                if not census.missing:
                    break
                census.build(state.nodes, state.jobs, LOOKS_AT_ONCE)
                yield
        for relation in relations:
            for _ in range(1 + len(state.nodes) // SITES_AT_ONCE if relation.kind is RelationKind.SPREAD else 0):
                if not self.begin_sites(state, job.placement, relation.place).build(state.nodes, SITES_AT_ONCE):
                    break
                yield

    # What is asked

    def census(self, state: Surroundings, relation: Relation) -> Census:
        """How many tasks of those that the relation means run where."""
        census = self.begin_census(state, relation)
        if census.missing:
            self._count(state, census)
        return census

    def begin_census(self, state: Surroundings, relation: Relation) -> Census:
        """The same, maybe still to be made: whoever has the time may do it bit by bit."""
        whose = relation.whose
        census = self._censuses.pop(whose, None)
        if census is None:
            if len(self._censuses) >= MOST_CENSUSES:
                del self._censuses[next(iter(self._censuses))]
            self._counted.clear()
            census = self._begin(state, whose)
        self._censuses[whose] = census
        if relation.place not in census.by_label:
            census.count_by(relation.place)
        return census

    def _begin(self, state: Surroundings, whose: Whose) -> Census:
        many = not whose.job_id and len(state.usage.running.get(whose.namespace, ())) > FEW
        if many or sum(state.jobs[each].active for each in self._running(state, whose)) > FEW:
            self._begun[whose] = None
            return Census(whose, state.nodes)
        census = Census(whose)
        self._count(state, census)
        return census

    def _running(self, state: Surroundings, whose: Whose) -> Iterator[JobId]:
        """The jobs of which some may be meant."""
        running = (whose.job_id,) if whose.job_id else state.usage.running.get(whose.namespace, ())
        return (job_id for job_id in running if job_id in state.jobs)

    def _count(self, state: Surroundings, census: Census) -> None:
        """All of it at once, which takes as long as much runs."""
        jobs = (state.jobs[job_id] for job_id in self._running(state, census.whose))
        attempts = [job.active_attempts for job in jobs if job.active_attempts and census.whose.means(job)]
        census.clear()
        for node_id, tasks in Counter(map(_NODE_ID, chain.from_iterable(map(dict.values, attempts)))).items():
            census.add(state.nodes[node_id].facts, tasks)

    def sites(self, state: Surroundings, rules: PlacementRules | None, label: str) -> Sites:
        """Over which a spread is judged."""
        sites = self.begin_sites(state, rules, label)
        sites.build(state.nodes)
        return sites

    def begin_sites(self, state: Surroundings, rules: PlacementRules | None, label: str) -> Sites:
        """The same, maybe still to be made: whoever has the time may do it bit by bit."""
        sites = self._sites.pop((rules, label), None)
        if sites is None:
            sites = Sites(rules, label, state.nodes)
            if len(self._sites) >= MOST_SITES:
                self._sites.pop(next(iter(self._sites))).dropped = True
        self._sites[rules, label] = sites
        return sites

    def lowest(self, state: Surroundings, job: Job, relation: Relation, census: Census) -> int:
        """How many tasks there are at the place which has the fewest; 0 where the relation is no spread."""
        if relation.kind is not RelationKind.SPREAD:
            return 0
        return census.lowest(relation.place, self.sites(state, job.placement, relation.place))

    def room(self, state: Surroundings, job: Job, node: Node, most: int) -> int:
        """How many tasks of the job, `most` at most, may start on a node by its relations that must hold."""
        for relation in relations_of(job):
            if relation.weight:
                continue
            census = self.census(state, relation)
            here = census.at(relation.place, place_of(relation.place, node.facts))
            low = self.lowest(state, job, relation, census)
            if not holds(relation, here, census.total, low):
                return 0
            if relation.kind is RelationKind.APART and relation.itself and here is not None:
                most = min(most, 1)
            elif relation.kind is RelationKind.SPREAD:
                most = min(most, low + relation.max_skew - (here or 0))
        return most

    def fault_of(self, state: Surroundings, job: Job, placed: Placed) -> Relation | None:
        """A relation that must hold, and wouldn't, if a job of which nothing runs yet started so at once."""
        for relation in relations_of(job):
            if relation.weight:
                continue
            census, used = self.census(state, relation), dict[str, int]()
            for node, tasks in placed:
                place = place_of(relation.place, node.facts)
                if place is not None:
                    used[place] = used.get(place, 0) + tasks
                elif relation.kind is not RelationKind.APART:
                    return relation
            counts = census.by_label[relation.place]
            sites = (
                self.sites(state, job.placement, relation.place).nodes if relation.kind is RelationKind.SPREAD else ()
            )
            if not hold_together(relation, used, counts, census.total, sites):
                return relation
        return None


def hold_together(
    relation: Relation, used: Mapping[str, int], counts: Mapping[str, int], total: int, sites: Collection[str]
) -> bool:
    """Whether a relation holds for all of so many tasks of a job at each place, as if they started one after the other.

    Nothing of the job runs yet. `counts` is what runs at each place of those who are meant, `sites` are the places of a spread.
    """
    match relation.kind:
        case RelationKind.NEAR:
            return all(counts.get(place) for place in used) or (relation.itself and not total and len(used) == 1)
        case RelationKind.APART:
            most = 1 if relation.itself else max(used.values(), default=0)
            return all(not counts.get(place) and tasks <= most for place, tasks in used.items())
        case RelationKind.SPREAD:
            low = min((used.get(place, 0) for place in sites), default=0) if len(used) >= len(sites) else 0
            return all(tasks - low <= relation.max_skew for tasks in used.values())
