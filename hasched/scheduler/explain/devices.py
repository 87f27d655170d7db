"""Devices that are there and not offered, because they are unwell: of what a task can't get, as much would be back with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.wire import DeviceInfo
from hasched.model.words import counted
from hasched.scheduler.blockers import Blocker
from hasched.scheduler.explain.groups import Group
from hasched.scheduler.explain.marks import FIRST_COUNTABLE, GPUS

GPU = "gpu"
_NAMED = 2  # devices of each kind


def find_unwell(requests: Sequence[Resources], groups: Sequence[Group]) -> Iterator[Blocker]:
    """For each kind of device that nodes of these groups have too few of: on how many of them some are unwell, and which."""
    found: dict[str, list[tuple[str, list[DeviceInfo]]]] = {}  # by kind: a node, and its unwell devices
    for group in groups:
        kinds = _short_kinds(requests[group.signature.choice], group.signature.mark)
        if not kinds:
            continue
        for node in group.nodes:
            if not node.info.devices:
                continue
            for kind in kinds:
                unwell = [device for device in node.info.devices if device.kind == kind and device.health]
                if unwell:
                    found.setdefault(kind, []).append((node.id, unwell))
    for kind, nodes in found.items():
        number = sum(len(unwell) for _, unwell in nodes)
        each = (f"{device.id} of {node_id} ({device.health})" for node_id, unwell in nodes for device in unwell)
        named = ", ".join(islice(each, _NAMED)) + (", …" if number > _NAMED else "")
        text = f"{counted(number, f'{kind} device')} {'is' if number == 1 else 'are'} unwell and not offered: {named}"
        yield Blocker(ReasonCode.DEVICE_UNHEALTHY, text, len(nodes))


def _short_kinds(request: Resources, mark: int) -> list[str]:
    kinds = [GPU] if mark & GPUS else []
    names = (name for name, _ in request.countables)
    return kinds + [name for number, name in enumerate(names, FIRST_COUNTABLE) if mark >> number & 1]
