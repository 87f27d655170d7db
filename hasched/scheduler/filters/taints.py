"""A node with a taint gets no job that doesn't tolerate it."""

from __future__ import annotations

from collections.abc import Hashable

from hasched.model.facts import NodeFacts
from hasched.model.reasons import ReasonCode
from hasched.model.states import TaintEffect
from hasched.model.taints import format_toleration
from hasched.scheduler.blockers import Blocker, Change
from hasched.scheduler.filters.wanted import Plain, Wanted


class Taints(Plain):
    name = "taints"

    def accepts(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> Blocker | None:
        tolerated = wanted.rules.tolerations
        kept_off = [
            taint for taint in node.taints if taint.effect is TaintEffect.NO_START and not taint.is_tolerated(tolerated)
        ]
        if not kept_off:
            return None
        names = ", ".join(map(str, kept_off))
        also = [*map(format_toleration, tolerated), *map(str, kept_off)]
        change = Change(f"tolerate {names}", key="placement.tolerations", value=also)
        return Blocker(ReasonCode.TAINT, f"it has the taint {names}, which the job doesn't tolerate", 1, change)
