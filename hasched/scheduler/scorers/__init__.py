"""Scorers: small pieces, each of which says how much less one node suits than another.

The policy of the cluster (`hasched.scheduler.placement`) orders nodes by how full they are. A `Scorer` adds to that what
doesn't change with a node's load: 0 for the best, 1 for as much as lies between a full node and an empty one. It is asked
once for each shape of task and each change of the node, and nodes with the same sum are searched as one: few different
values keep the search fast.

Other packages bring scorers by entry points of the group `hasched.scorers` (`hasched.manager.plugins` loads them).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from hasched.model.facts import NodeFacts
from hasched.model.spec import ANYWHERE, PlacementRules, Resources
from hasched.scheduler.filters.wanted import Wanted
from hasched.scheduler.scorers.avoided import Avoided
from hasched.scheduler.scorers.locality import Locality
from hasched.scheduler.scorers.wishes import Wishes
from hasched.statemachine.job import Job

__all__ = ["ADDED", "BUILT_IN", "Scorer", "Wanted", "dislike"]


class Scorer(Protocol):
    """It must be pure: the same arguments, the same score."""

    name: str

    def reads(self, job: Job) -> Hashable:
        """What of the job the score depends on beyond its request and rules; None if it is nothing."""

    def dislike(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> float:
        """0 or more. `trait` is what `reads` said of the job."""


BUILT_IN: tuple[Scorer, ...] = (Wishes(), Avoided(), Locality())
ADDED: list[Scorer] = []  # by other packages, in the order of their names


def dislike(node: NodeFacts, rules: PlacementRules | None, request: Resources, traits: tuple[Hashable, ...]) -> float:
    """The sum of what all scorers say of a node."""
    wanted = Wanted(request, ANYWHERE if rules is None else rules)
    total = sum(each.dislike(node, wanted, None) for each in BUILT_IN)
    return total + sum(_ask(each, node, wanted, trait) for each, trait in zip(ADDED, traits, strict=True))


def _ask(judge: Scorer, node: NodeFacts, wanted: Wanted, trait: Hashable) -> float:
    """What it says. One that fails, or says what is no score, has no say."""
    try:
        score = float(judge.dislike(node, wanted, trait))
    except Exception:
        return 0.0
    return score if 0.0 <= score < float("inf") else 0.0
