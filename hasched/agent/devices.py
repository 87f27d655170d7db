"""Which GPUs are bound to which attempt: never one device to two.

A GPU is known by its UUID, since its number changes when another one comes or goes; by its number only where no UUID is
known (the configuration says how many there are).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Devices:
    """The node's GPUs, numbered from 0 in PCI bus order."""

    def __init__(self, count: int, uuids: Sequence[str] = ()) -> None:
        self.count = count
        self._uuids = tuple(uuids) if len(uuids) == count else ()
        self._free = list(range(count))

    def take(self, count: int) -> tuple[int, ...] | None:
        """The lowest `count` free devices, or None if there are too few."""
        if count > len(self._free):
            return None
        taken, self._free = tuple(self._free[:count]), self._free[count:]
        return taken

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
