"""What a job says of other tasks, judged on the state as it is: near to some, apart from some, its own evenly spread."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.reasons import ReasonCode
from hasched.scheduler.relations import Relation, RelationKind, holds, relations_of
from hasched.scheduler.tallies import Tallies, Tally
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

CODES = {
    RelationKind.NEAR: ReasonCode.AFFINITY,
    RelationKind.APART: ReasonCode.ANTI_AFFINITY,
    RelationKind.SPREAD: ReasonCode.SPREAD,
}
KEYS = {
    ReasonCode.AFFINITY: "placement.affinity",
    ReasonCode.ANTI_AFFINITY: "placement.anti_affinity",
    ReasonCode.SPREAD: "placement.spread",
}


class Surroundings:
    """The relations of a job that must hold. Made for one question, for it counts all that runs on every node."""

    def __init__(self, state: State, job: Job) -> None:
        self._judged: list[tuple[Relation, Tally, int]] = []
        relations = [relation for relation in relations_of(job) if not relation.weight]
        if not relations:
            return
        tallies = Tallies(lambda: iter(()))
        tallies.follow(state)
        for relation in relations:
            tally = tallies.hold(relation)
            while tally.missing:
                tallies.build(tally)
            self._judged.append((relation, tally, _floor(state, job, relation, tally)))

    def __bool__(self) -> bool:
        return bool(self._judged)

    def refusals(self, node: Node) -> Iterator[tuple[ReasonCode, str]]:
        """Which relation would not hold if one more task started there, and what it is about."""
        facts = node.facts
        for relation, tally, floor in self._judged:
            if not holds(relation, tally.at(relation, facts), tally.total, floor):
                yield CODES[relation.kind], _tell(relation)


def _floor(state: State, job: Job, relation: Relation, tally: Tally) -> int:
    """How many tasks there are at the place, of those that the rules allow, which has the fewest; as the planner counts."""
    if relation.kind is not RelationKind.SPREAD:
        return 0
    allowed = [node for node in state.nodes.values() if node.takes_work and node.admits(job.placement)]
    if not relation.place:
        return min((tally.counts.get(node.id, 0) for node in allowed), default=0)
    values = dict.fromkeys(node.facts.labels.get(relation.place) for node in allowed)
    counts = tally.by_label[relation.place]
    return min((counts.get(value, 0) for value in values if value is not None), default=0)


def _tell(relation: Relation) -> str:
    place = f"label {relation.place}" if relation.place else "node"
    if relation.kind is RelationKind.SPREAD:
        return f"one more task there would be over the skew of {relation.max_skew} by {place}"
    selector = relation.whose.selector
    jobs = (
        "the job itself"
        if relation.whose.job_id
        else " ".join(
            [
                *([f"name {selector.name}"] if selector.name else []),
                *(f"{key}={value}" for key, value in selector.labels),
            ]
        )
    )
    if relation.kind is RelationKind.NEAR:
        return f"no task of jobs with {jobs} runs there, by {place}"
    return f"a task of jobs with {jobs} runs there, by {place}"
