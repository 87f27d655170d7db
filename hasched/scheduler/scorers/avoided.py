"""A node with a taint that only asks to be avoided gets a job that doesn't tolerate it where nothing else will do."""

from __future__ import annotations

from collections.abc import Hashable

from hasched.model.facts import NodeFacts
from hasched.model.states import TaintEffect
from hasched.scheduler.filters.wanted import Plain, Wanted

LAST_RESORT = 1000.0  # more than all wishes of a job together


class Avoided(Plain):
    name = "avoided"

    def dislike(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> float:
        avoided = [
            taint
            for taint in node.taints
            if taint.effect is TaintEffect.AVOID and not taint.is_tolerated(wanted.rules.tolerations)
        ]
        return LAST_RESORT * len(avoided)
