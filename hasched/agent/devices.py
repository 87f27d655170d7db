"""Which GPUs are bound to which attempt: never one device to two."""

from __future__ import annotations


class Devices:
    """The node's GPUs, numbered from 0 in PCI bus order."""

    def __init__(self, count: int) -> None:
        self._count = count
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
        return ",".join(map(str, devices)) if self._count else None

    def claim(self, visible: str | None) -> tuple[int, ...]:
        """Bind the devices that an attempt has already, from its CUDA_VISIBLE_DEVICES."""
        devices = tuple(int(device) for device in (visible or "").split(",") if device)
        self._free = [device for device in self._free if device not in devices]
        return tuple(device for device in devices if device < self._count)
