"""What a job says of other tasks, judged on the state as it is: near to some, apart from some, its own evenly spread."""

from __future__ import annotations

from collections.abc import Sequence

from hasched.model.reasons import ReasonCode
from hasched.statemachine.census import Census
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
        self._verdicts: dict[
            tuple[int | None, ...], list[tuple[ReasonCode, str]]
        ] = {}  # by how many there are around a node
        for relation in relations_of(job):
            if not relation.weight:
                census = state.neighbours.census(state, relation)
                self._judged.append((relation, census, state.neighbours.lowest(state, job, relation, census)))

    def __bool__(self) -> bool:
        return bool(self._judged)

    def around(self, nodes: Sequence[Node]) -> list[tuple[int | None, ...]]:
        """How many of those that each relation counts there are around each node."""
        columns: list[list[int | None]] = []
        for relation, census, _ in self._judged:
            counts = census.by_label[relation.place]
            if label := relation.place:
                values = [node.info.labels.get(label) for node in nodes]
                columns.append([None if value is None else counts.get(value, 0) for value in values])
            else:
                columns.append([counts.get(node.id, 0) for node in nodes])
        return list(zip(*columns, strict=True))

    def refusals(self, node: Node) -> list[tuple[ReasonCode, str]]:
        """Which relation would not hold if one more task started there, and what it is about."""
        (around,) = self.around((node,))
        found = self._verdicts.get(around)
        if found is None:
            found = self._verdicts[around] = [
                (CODES[relation.kind], _tell(relation))
                for (relation, census, floor), here in zip(self._judged, around, strict=True)
                if not holds(relation, here, census.total, floor)
            ]
        return found


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
