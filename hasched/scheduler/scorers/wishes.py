"""What a job wishes of nodes: affinity and anti-affinity with a weight."""

from __future__ import annotations

from collections.abc import Hashable

from hasched.model.constraints import compile_constraint
from hasched.model.facts import NodeFacts
from hasched.scheduler.filters.wanted import Plain, Wanted
from hasched.scheduler.relations import WHOLE_WEIGHT


class Wishes(Plain):
    name = "wishes"

    def dislike(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> float:
        missed = 0
        for wish in wanted.rules.prefer:
            if compile_constraint(wish.nodes)(node) is (wish.weight < 0):
                missed += abs(wish.weight)
        return missed / WHOLE_WEIGHT
