"""What a job says of other tasks, judged on the state as it is: near to some, apart from some, its own evenly spread."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.reasons import ReasonCode
from hasched.scheduler.explain.members import Members
from hasched.statemachine.census import Census, place_of
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.relations import Relation, RelationKind, holds, relations_of
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
    """The relations of a job that must hold, as they are checked when a plan is applied."""

    def __init__(self, state: State, job: Job) -> None:
        self._judged: list[tuple[Relation, Census, int]] = []
        for relation in relations_of(job):
            if not relation.weight:
                census = state.neighbours.census(state, relation)
                self._judged.append((relation, census, state.neighbours.lowest(state, job, relation, census)))
        self._verdicts = [_Verdicts(*each) for each in self._judged]

    def __bool__(self) -> bool:
        return bool(self._judged)

    def columns(self, members: Members) -> Iterator[list[bool]]:
        """For each relation, on which nodes of a class it would hold if one more task started there."""
        for (relation, census, _), verdicts in zip(self._judged, self._verdicts, strict=True):
            if relation.place:
                yield list(map(verdicts.__getitem__, members.labels(relation.place)))
            else:
                yield list(map(verdicts.__getitem__, map(census.by_label[""].get, members.ids)))

    def refusals(self, node: Node) -> list[tuple[ReasonCode, str]]:
        """Which relation would not hold if one more task started there, and what it is about."""
        return [
            (CODES[relation.kind], _tell(relation))
            for relation, census, floor in self._judged
            if not holds(relation, census.at(relation.place, place_of(relation.place, node.facts)), census.total, floor)
        ]


class _Verdicts(dict[str | int | None, bool]):
    """Whether a relation would hold at a place if one more task started there.

    By the value of its label; where each node is a place of its own, by the number there, None for none: many have the same.
    """

    def __init__(self, relation: Relation, census: Census, floor: int) -> None:
        self._relation = relation
        self._census = census
        self._floor = floor

    def __missing__(self, key: str | int | None) -> bool:
        label = self._relation.place
        here = self._census.at(label, key) if isinstance(key, str) else None if label else key or 0
        verdict = self[key] = holds(self._relation, here, self._census.total, self._floor)
        return verdict


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
