"""Filters: small pieces, each of which rules out nodes for one reason, and says it as a `Blocker`.

A `Filter` judges a node by what doesn't change with its load. Its verdict is asked for once for each shape of task and each
change of the node, so it may take its time; and it holds for all jobs of the shape, so it may look at nothing else. What it
needs of a job beyond the request and the placement rules it names by `reads`, and jobs that differ in it get shapes of their own.

The rules toward other jobs (`near`, `apart`, `spread`) change with every start; they are `relations`.

Other packages bring filters by entry points of the group `hasched.filters` (`hasched.manager.plugins` loads them).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from hasched.model.facts import NodeFacts
from hasched.model.reasons import ReasonCode
from hasched.model.spec import ANYWHERE, PlacementRules, Resources
from hasched.scheduler.blockers import Blocker
from hasched.scheduler.filters.constraints import Constraints
from hasched.scheduler.filters.gpus import Gpus
from hasched.scheduler.filters.pools import Pools
from hasched.scheduler.filters.taints import Taints
from hasched.scheduler.filters.wanted import Wanted
from hasched.statemachine.job import Job

__all__ = ["ADDED", "BUILT_IN", "Filter", "Wanted", "find_added", "find_blockers", "is_accepted"]


class Filter(Protocol):
    """Judges one node for one shape of task. It must be pure: the same arguments, the same verdict."""

    name: str

    def reads(self, job: Job) -> Hashable:
        """What of the job the verdict depends on beyond its request and rules; None if it is nothing."""

    def accepts(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> Blocker | None:
        """None, or why the task may not run there. `trait` is what `reads` said of the job."""


BUILT_IN: tuple[Filter, ...] = (Pools(), Taints(), Constraints(), Gpus())
MAX_FAULT_CHARS = 300
ADDED: list[Filter] = []  # by other packages, in the order of their names


def _wanted_by(job: Job, choice: int = 0) -> Wanted:
    """What filters look at of a job, with one of its alternative requests."""
    return Wanted(job.request(choice), ANYWHERE if job.placement is None else job.placement)


def is_accepted(
    node: NodeFacts, rules: PlacementRules | None, request: Resources, traits: tuple[Hashable, ...]
) -> bool:
    """Whether every added filter lets the task run there; of the built-in ones `Node.admits` is the short form."""
    wanted = Wanted(request, ANYWHERE if rules is None else rules)
    return all(_ask(each, node, wanted, trait) is None for each, trait in zip(ADDED, traits, strict=True))


def find_blockers(node: NodeFacts, job: Job, choice: int = 0) -> list[Blocker]:
    """Everything that keeps the job from this node, whatever runs there."""
    wanted = _wanted_by(job, choice)
    verdicts = (each.accepts(node, wanted, None) for each in BUILT_IN)
    return [*(blocker for blocker in verdicts if blocker is not None), *find_added(node, job, choice)]


def find_added(node: NodeFacts, job: Job, choice: int = 0) -> list[Blocker]:
    """What the filters of other packages say against it."""
    wanted = _wanted_by(job, choice)
    verdicts = (_ask(each, node, wanted, each.reads(job)) for each in ADDED)
    return [blocker for blocker in verdicts if blocker is not None]


def _ask(judge: Filter, node: NodeFacts, wanted: Wanted, trait: Hashable) -> Blocker | None:
    """Its verdict. One that fails refuses: the planner goes on, nothing is placed against it, and `why` says what went wrong."""
    try:
        return judge.accepts(node, wanted, trait)
    except Exception as error:
        return Blocker(ReasonCode.FILTER, f"the filter {judge.name} failed: {error!r}"[:MAX_FAULT_CHARS], 1)
