"""A node has to have enough GPUs of one model that will do, busy or not."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from hasched.model.facts import NodeFacts, gpu_class_of
from hasched.model.reasons import ReasonCode
from hasched.model.units import format_bytes
from hasched.model.words import tell_gpus
from hasched.scheduler.blockers import Blocker, Change
from hasched.scheduler.filters.wanted import Plain, Wanted


class Gpus(Plain):
    name = "gpus"

    def accepts(self, node: NodeFacts, wanted: Wanted, trait: Hashable) -> Blocker | None:
        request = wanted.request
        if not request.gpus or not request.picks_gpus or gpu_class_of(node.gpus, request) >= 0:
            return None
        any_model = msgspec.structs.replace(request, gpu_models=())
        offered = ", ".join(f"{kind.number} of {kind.model or 'an unknown model'}" for kind in node.gpus) or "none"
        if request.gpu_models and gpu_class_of(node.gpus, any_model) >= 0:
            models = " or ".join(request.gpu_models)
            change = Change("take any model", key="resources.gpu_model")
            text = f"the job asks for {tell_gpus(request.gpus)} of {models}, and it has {offered}"
            return Blocker(ReasonCode.GPU_MODEL, text, 1, change)
        any_size = msgspec.structs.replace(request, gpu_memory_bytes=0)
        if request.gpu_memory_bytes and gpu_class_of(node.gpus, any_size) >= 0:
            kind = node.gpus[gpu_class_of(node.gpus, any_size)]
            size = format_bytes(kind.memory_bytes)
            change = Change(f"ask for {size} at most", key="resources.gpu_memory", value=size)
            text = f"the job asks for GPUs with {format_bytes(request.gpu_memory_bytes)}, and its have {size}"
            return Blocker(ReasonCode.GPU_MEMORY, text, 1, change)
        text = f"the job asks for {tell_gpus(request.gpus)}, alike and as it wants them, and it has {offered}"
        return Blocker(ReasonCode.INSUFFICIENT_GPUS, text, 1)
