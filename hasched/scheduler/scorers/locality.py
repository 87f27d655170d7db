"""A task that wants its GPUs near to each other prefers nodes on which so many are."""

from __future__ import annotations

from collections.abc import Hashable

from hasched.model.facts import NodeFacts
from hasched.model.states import GpuLocality
from hasched.scheduler.filters.wanted import Plain, Wanted


class Locality(Plain):
    name = "locality"

    def dislike(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> float:
        match wanted.rules.gpu_locality:
            case GpuLocality.NVLINK:
                near = node.most_gpus_linked
            case GpuLocality.SAME_NUMA:
                near = node.most_gpus_on_numa
            case GpuLocality.ANY:
                return 0.0
        return 0.0 if near >= wanted.request.gpus else 1.0
