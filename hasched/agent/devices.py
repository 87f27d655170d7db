"""Which GPUs are bound to which attempt: never one device to two.

A GPU is known by its UUID, since its number changes when another one comes or goes; by its number only where no UUID is
known (the configuration says how many there are).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hasched.model.facts import gpu_class_of, sort_gpus
from hasched.model.spec import Resources
from hasched.model.states import GpuLocality
from hasched.model.wire import GpuDevice


class Devices:
    """The node's GPUs, numbered from 0 in PCI bus order."""

    def __init__(self, count: int, uuids: Sequence[str] = (), gpus: Sequence[GpuDevice] = ()) -> None:
        self.count = count
        self._gpus = tuple(gpus) if len(gpus) == count else ()  # what is known of each
        self._kinds = sort_gpus(gpus, count)
        self._uuids = tuple(uuids) if len(uuids) == count else ()
        self._free = list(range(count))

    def take(self, request: Resources, locality: GpuLocality = GpuLocality.ANY) -> tuple[int, ...] | None:
        """Free devices for a task: of the kind that the managers count it under, as near to each other as can be had, and of
        those the lowest. None if there are too few."""
        free = [device for device in self.suitable(request) if device in self._free]
        if request.gpus > len(free):
            return None
        taken = tuple(sorted(self._nearest(free, locality, request.gpus)[: request.gpus]))
        self._free = [device for device in self._free if device not in taken]
        return taken

    def suitable(self, request: Resources) -> Sequence[int]:
        """The devices that a task may be given, free or not."""
        if len(self._kinds) < 2 and not request.picks_gpus:
            return range(self.count)
        number = gpu_class_of(self._kinds, request)
        if number < 0:
            return ()
        kind = self._kinds[number]
        alike = [place for place, gpu in enumerate(self._gpus) if (gpu.model, gpu.memory_bytes) == kind[:2]]
        return alike or range(self.count)

    def would_wait_in_vain(self, request: Resources, staying: Iterable[tuple[int, ...]]) -> bool:
        """Whether a task can't get its devices before something ends that holds some of them and was not told to stop."""
        suitable = self.suitable(request)
        held = sum(device in suitable for devices in staying for device in devices)
        return request.gpus + held > len(suitable)

    def _nearest(self, free: list[int], locality: GpuLocality, count: int) -> list[int]:
        """Free devices, those of the group first that is the smallest with so many; if none has, of the largest groups."""
        if locality is GpuLocality.ANY or not self._gpus or count < 2:
            return free
        groups: dict[int, list[int]] = {}
        for device in free:
            gpu = self._gpus[device]
            number = gpu.numa_node if locality is GpuLocality.SAME_NUMA else gpu.nvlink_group
            groups.setdefault(number if number >= 0 else -1 - device, []).append(device)
        ordered = sorted(groups.values(), key=lambda group: (len(group) < count, abs(len(group) - count), group))
        return [device for group in ordered for device in group]

    def release(self, devices: tuple[int, ...]) -> None:
        if devices:
            self._free = sorted({*self._free, *devices})

    def visible(self, devices: tuple[int, ...]) -> str | None:
        """The value of CUDA_VISIBLE_DEVICES: empty hides all GPUs; None on a node without any."""
        return ",".join(map(str, devices)) if self.count else None

    def uuids(self, devices: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._uuids[device] for device in devices) if self._uuids else ()

    def claim(self, visible: str | None, uuids: Sequence[str]) -> tuple[tuple[int, ...], list[str]]:
        """Bind the devices that an attempt has already. Returns them, and the names of those that are gone.

        `visible` is its CUDA_VISIBLE_DEVICES, `uuids` who they are, as far as that is known.
        """
        by_uuid = uuids and self._uuids
        places = self._uuids if by_uuid else tuple(map(str, range(self.count)))
        names = [name for name in (uuids if by_uuid else (visible or "").split(",")) if name]
        devices = tuple(places.index(name) for name in names if name in places)
        self._free = [device for device in self._free if device not in devices]
        return devices, [name for name in names if name not in places]


def too_few(count: int) -> str:
    return f"the node has {count} GPU{'s' if count != 1 else ''} now, too few for what was placed on it"


def gone(names: Iterable[str]) -> str:
    return f"a GPU that it held is gone: {', '.join(names)}"
