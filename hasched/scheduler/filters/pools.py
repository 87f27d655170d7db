"""A job runs on nodes of the pools that it names."""

from __future__ import annotations

from collections.abc import Hashable

from hasched.model.eligibility import is_in_pool
from hasched.model.facts import NodeFacts
from hasched.model.reasons import ReasonCode
from hasched.scheduler.blockers import Blocker, Change
from hasched.scheduler.filters.wanted import Plain, Wanted


class Pools(Plain):
    name = "pools"

    def accepts(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> Blocker | None:
        pools = wanted.rules.pools
        if is_in_pool(node, wanted.rules):
            return None
        text = f"it is in the pool {node.pool}, and the job asks for {' or '.join(pools)}"
        also = sorted((*pools, node.pool))
        change = Change(f"allow the pool {node.pool} too", key="placement.pool", value=also)
        return Blocker(ReasonCode.POOL, text, 1, change)
