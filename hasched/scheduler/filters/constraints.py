"""What a job says must hold of a node."""

from __future__ import annotations

from collections.abc import Hashable

from hasched.model.constraints import compile_constraint
from hasched.model.facts import NodeFacts
from hasched.model.reasons import ReasonCode
from hasched.scheduler.blockers import Blocker, Change
from hasched.scheduler.filters.wanted import Plain, Wanted


class Constraints(Plain):
    name = "constraints"

    def accepts(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> Blocker | None:
        constraints = wanted.rules.constraints
        unmet = [each for each in constraints if not compile_constraint(each)(node)]
        if not unmet:
            return None
        left = [each for each in constraints if each not in unmet]
        words = "; ".join(unmet)
        change = Change(f"leave out {words}", key="placement.constraints", value=left or None)
        return Blocker(ReasonCode.CONSTRAINT, f"this does not hold of it: {words}", 1, change)
