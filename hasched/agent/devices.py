"""Which devices are bound to which attempt: never one device to two. Pure.

A device is a GPU, a part of one (a MIG instance, a share) or whatever a plugin offers. It consists of one or more `units`,
and a unit is what is bound. A unit is known by a name that stays when other devices come or go; a GPU by its number only
where no more is known of it (the configuration says how many there are).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from hasched.model.facts import gpu_class_of, sort_gpus
from hasched.model.spec import Resources
from hasched.model.states import GpuLocality
from hasched.model.wire import DeviceInfo, GpuDevice

GPU = "gpu"  # of whole GPUs, which are no countable; every other kind is the countable of that name
SHARE = "gpu-share"
OWN = ":"  # stands in the ids of plugins' devices, and of no GPU


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`visible` is what CUDA calls it. A plugin's device is called `name` in the environment variable `variable`."""

    id: str
    kind: str = GPU
    units: int = 1
    visible: str = ""
    name: str = ""
    variable: str = ""
    model: str = ""
    memory_bytes: int = 0
    numa_node: int = -1
    nvlink_group: int = -1
    health: str = ""  # why it is not offered; empty: it is

    @property
    def names(self) -> tuple[str, ...]:
        """Of its units."""
        return (self.id,) if self.units == 1 else tuple(f"{self.id}/{number}" for number in range(self.units))

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(
            id=self.id,
            kind=self.kind,
            units=self.units,
            model=self.model,
            memory_bytes=self.memory_bytes,
            numa_node=self.numa_node,
            nvlink_group=self.nvlink_group,
            health=self.health,
        )


def number_gpus(count: int, uuids: Sequence[str] = ()) -> list[Device]:
    """GPUs of which no more is known than how many there are, or what they are called."""
    names = uuids if len(uuids) == count else [str(number) for number in range(count)]
    return [Device(id=name, visible=str(number)) for number, name in enumerate(names)]


class Devices:
    """The node's devices, and which of their units are held."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self._held: dict[str, None] = {}
        self._units: dict[str, Device] = {}
        self.update(devices)

    def update(self, devices: Iterable[Device]) -> list[str]:
        """Take another inventory. Returns the units that are held, and not there any more; they stay held."""
        self._devices = tuple(devices)
        self._units = {name: device for device in self._devices for name in device.names}
        return [name for name in self._held if name not in self._units]

    @property
    def has_gpus(self) -> bool:
        """Whether tasks have to be told which GPUs are theirs, be it none."""
        return any(device.visible for device in self._devices)

    def count(self, kind: str = GPU) -> int:
        """How many units of a kind are offered."""
        return sum(device.units for device in self._devices if device.kind == kind and not device.health)

    def take(self, request: Resources, locality: GpuLocality = GpuLocality.ANY) -> tuple[str, ...] | None:
        """Units for the whole request, bound from now on; None if there are too few that are free."""
        taken: list[str] = []
        for kind, amount, suitable in self._asked(request):
            free = [name for name in suitable if name not in self._held]
            if len(free) < amount:
                return None
            chosen = self._nearest(free, amount, locality) if kind == GPU else self._fullest(free, amount)
            taken += sorted(chosen, key=free.index)
        self._held.update(dict.fromkeys(taken))
        return tuple(taken)

    def release(self, units: Iterable[str]) -> None:
        for name in units:
            self._held.pop(name, None)

    def lacking(self, request: Resources, staying: Iterable[str]) -> str:
        """Why the request would wait in vain for as long as `staying` stay where they are; empty if it would not."""
        there = list(staying)
        for kind, amount, suitable in self._asked(request):
            if amount + sum(name in suitable for name in there) > len(suitable):
                return too_few(len(suitable), kind)
        return ""

    def _asked(self, request: Resources) -> list[tuple[str, int, dict[str, None]]]:
        """What of the request is bound to devices: kind, amount, and the units that will do, whether free or not."""
        offered = [device for device in self._devices if not device.health]
        asked: list[tuple[str, int, dict[str, None]]] = []
        if request.gpus:
            asked.append((GPU, request.gpus, self._suitable_gpus(offered, request)))
        for kind, amount in request.countables:
            if any(device.kind == kind for device in self._devices):
                names = (name for device in offered if device.kind == kind for name in device.names)
                asked.append((kind, amount, dict.fromkeys(names)))
        return asked

    def _suitable_gpus(self, offered: Sequence[Device], request: Resources) -> dict[str, None]:
        """Of the kind that the managers count this request with, too."""
        gpus = [device for device in offered if device.kind == GPU]
        kinds = sort_gpus((GpuDevice(gpu.id, gpu.model, gpu.memory_bytes) for gpu in gpus), len(gpus))
        if len(kinds) > 1 or request.picks_gpus:
            number = gpu_class_of(kinds, request)
            kind = kinds[number][:2] if number >= 0 else None
            gpus = [gpu for gpu in gpus if (gpu.model, gpu.memory_bytes) == kind]
        return dict.fromkeys(gpu.id for gpu in gpus)

    def _nearest(self, free: Sequence[str], amount: int, locality: GpuLocality) -> list[str]:
        """GPUs that reach each other fast: from one group by NVLink or, failing that, on one NUMA node.

        Of several groups the one that has the least beyond what is wanted, so that the larger ones stay whole.
        """
        by_link, by_numa = (self._groups(by) for by in ("nvlink_group", "numa_node"))
        first, second = (by_numa, by_link) if locality is GpuLocality.SAME_NUMA else (by_link, by_numa)
        for near, nearer in ((first, second), (second, first)):
            group = _smallest(near(free), amount)
            if group:
                return (_smallest(nearer(group), amount) or group)[:amount]
        largest = sorted(first(free), key=len, reverse=True)  # as few groups as will do
        return [name for group in largest for name in group][:amount]

    def _groups(self, by: str) -> Callable[[Sequence[str]], list[list[str]]]:
        """What sorts GPUs into those that have this in common; one of which it isn't known is alone."""

        def sort(names: Sequence[str]) -> list[list[str]]:
            groups: dict[object, list[str]] = {}
            for name in names:
                common = getattr(self._units[name], by)
                groups.setdefault(common if common >= 0 else name, []).append(name)
            return list(groups.values())

        return sort

    def _fullest(self, free: Sequence[str], amount: int) -> list[str]:
        """Units of as few devices as will do, and of those that are in use already."""
        of_device: dict[str, list[str]] = {}
        for name in free:
            of_device.setdefault(self._units[name].id, []).append(name)
        if enough := _smallest(of_device.values(), amount):
            return enough[:amount]
        largest = sorted(of_device.values(), key=len, reverse=True)
        return [name for names in largest for name in names][:amount]

    # What a task is told.

    def visible(self, units: Iterable[str]) -> str | None:
        """The value of CUDA_VISIBLE_DEVICES: empty hides all GPUs; None on a node without any."""
        if not self.has_gpus:
            return None
        devices = dict.fromkeys(self._units[name] for name in units if self._units[name].visible)
        if any(not device.visible.isdigit() for device in devices):  # a number can't stand beside a name
            return ",".join(device.id if device.visible.isdigit() else device.visible for device in devices)
        return ",".join(device.visible for device in devices)

    def environment(self, units: Sequence[str]) -> dict[str, str]:
        """All that was bound, as `KIND=ID[,ID] …`, and what plugins want their devices named in."""
        if not units:
            return {}
        by_kind: dict[str, list[str]] = {}
        variables: dict[str, list[str]] = {}
        for name in units:
            device = self._units[name]
            by_kind.setdefault(device.kind, []).append(name.removeprefix(f"{device.kind}{OWN}"))
            if device.variable and device.name not in variables.setdefault(device.variable, []):
                variables[device.variable].append(device.name)
        named = {variable: ",".join(names) for variable, names in variables.items()}
        return {**named, "HASCHED_DEVICES": " ".join(f"{kind}={','.join(ids)}" for kind, ids in by_kind.items())}

    def known_as(self, units: Iterable[str]) -> tuple[str, ...]:
        """The names that will still be right when the devices have changed; a mere number won't."""
        return tuple(name for name in units if not name.isdigit())

    def claim(self, visible: str | None, units: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
        """Bind what an attempt has already. Returns that, and the names of what is gone.

        `visible` is its CUDA_VISIBLE_DEVICES, `units` what they are, as far as that is known.
        """
        numbers = {device.visible: device.id for device in self._devices if device.kind == GPU and device.visible}
        has_names = any(not name.isdigit() and OWN not in name for name in self._units)
        gpus = [name for name in units if OWN not in name]
        others = [name for name in units if OWN in name]
        if gpus and (has_names or not numbers):
            wanted = gpus
        else:
            wanted = [numbers.get(name, name) for name in (visible or "").split(",") if name]
        wanted += others
        found = tuple(name for name in wanted if name in self._units)
        self._held.update(dict.fromkeys(found))
        return found, [name for name in wanted if name not in self._units]


def _smallest(groups: Iterable[list[str]], amount: int) -> list[str]:
    """The smallest group that is large enough, the first of equals; empty if none is."""
    return min((group for group in groups if len(group) >= amount), key=len, default=[])


def too_few(count: int, kind: str = GPU) -> str:
    what = f"GPU{'s' if count != 1 else ''}" if kind == GPU else f"of {kind}"
    return f"the node has {count} {what} now, too few for what was placed on it"


def gone(names: Iterable[str]) -> str:
    listed = list(names)
    what = "a device" if any(OWN in name for name in listed) else "a GPU"
    return f"{what} that it held is gone: {', '.join(listed)}"
