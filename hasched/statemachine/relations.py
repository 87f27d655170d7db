"""Relations: where the tasks of a job may run as to where tasks run already, of others and its own.

`near` to some, `apart` from some, and its own in `spread`. The planner judges by what runs and what is on its way
(`scheduler/tallies.py`), and the state again by what runs when a plan is applied (`neighbours.py`).
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from hasched.model.ids import JobId
from hasched.model.spec import JobSelector
from hasched.statemachine.job import Job


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
