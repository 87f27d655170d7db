"""NVIDIA's GPUs, as the driver's library (NVML) tells of them: what they are, how near to each other, and whether they are well.

One session with the library stays open, since the driver reports an Xid (its word for an error of the GPU) only to who
listens. It is opened anew when the number of GPUs changes or one stops to answer. All calls block, and a broken GPU may
block them for long: they belong into a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import structlog

from hasched.agent.devices import Device
from hasched.agent.machine import find_numa_node

# Errors of the application that runs there, not of the GPU (NVIDIA's "Xid errors" manual; the same list as in their plugin for
# Kubernetes).
APPLICATION_XIDS = frozenset((13, 31, 43, 45, 68, 109))
MIG = "mig-"

_log = structlog.get_logger(__name__)
_PROFILE = re.compile(r"\bMIG (\S+)")


class _Gpu(msgspec.Struct):
    """What doesn't change while a session is open. `xid` is the last one that speaks against it."""

    handle: Any
    bus_id: str
    device: Device
    xid: int = 0


class Nvml:
    """Not thread-safe: one `read` at a time."""

    def __init__(self, ignored_xids: Iterable[int] = ()) -> None:
        self._ignored = APPLICATION_XIDS | frozenset(ignored_xids)
        self._gpus: list[_Gpu] = []
        self._xids: dict[str, int] = {}  # by UUID; kept over sessions, until the GPU is gone
        self._count = 0
        self._unread: list[int] = []  # the numbers of GPUs that didn't answer when the session was opened
        self._open = False
        self._events: Any = None

    def read(self) -> list[Device]:
        """Every GPU that answers, in the order of their PCI buses, and the MIG instances of those that are partitioned."""
        import pynvml

        try:
            if self._open and self._has_changed():
                self.close()
            if not self._open and not self._begin():
                return []
            self._hear_xids()
            found, lost = self._look()
            if lost:
                self.close()  # so that the next look finds what is there by then, under its numbers
            return found
        except pynvml.NVMLError as error:
            _log.error("gpus_not_read", cause=str(error))
            why = f"the driver can't be asked: {error}"
            known = [msgspec.structs.replace(gpu.device, health=why) for gpu in self._gpus]
            self.close()
            return known

    def _has_changed(self) -> bool:
        """Whether GPUs have come, gone, or come to their senses since the session was opened. Raises NVMLError."""
        import pynvml

        return pynvml.nvmlDeviceGetCount() != self._count or any(map(_answers, self._unread))

    def close(self) -> None:
        """End the session."""
        import pynvml

        if not self._open:
            return
        self._open = False
        self._gpus = []
        for end in (
            lambda: pynvml.nvmlEventSetFree(self._events) if self._events is not None else None,
            pynvml.nvmlShutdown,
        ):
            try:
                end()
            except pynvml.NVMLError as error:
                _log.warning("nvml_not_closed", cause=str(error))
        self._events = None

    def _begin(self) -> bool:
        """Open a session and take stock. False where there is no driver. Raises NVMLError."""
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return False
        self._open = True
        self._count = pynvml.nvmlDeviceGetCount()
        found = []
        self._unread = []
        for number in range(self._count):
            try:
                found.append(_identify(number))
            except pynvml.NVMLError as error:
                self._unread.append(number)
                _log.error("gpu_not_read", number=number, cause=str(error), effect="it is not offered")
        found.sort(key=lambda gpu: gpu.bus_id)
        links = _link_groups(found)
        for number, gpu in enumerate(found):
            gpu.device = msgspec.structs.replace(gpu.device, visible=str(number), nvlink_group=links.get(number, -1))
            gpu.xid = self._xids.get(gpu.device.id, 0)
        self._gpus = found
        self._xids = {gpu.device.id: gpu.xid for gpu in found if gpu.xid}
        self._listen()
        return True

    def _listen(self) -> None:
        """Ask to be told of Xids; some GPUs can't."""
        import pynvml

        try:
            self._events = pynvml.nvmlEventSetCreate()
            for gpu in self._gpus:
                pynvml.nvmlDeviceRegisterEvents(gpu.handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
        except pynvml.NVMLError as error:
            _log.warning("gpu_errors_not_heard", cause=str(error))

    def _hear_xids(self) -> None:
        import pynvml

        while self._events is not None:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    _log.warning("gpu_errors_not_heard", cause=str(error))
                return
            xid = int(event.eventData)
            uuid = _text(pynvml.nvmlDeviceGetUUID(event.device))
            speaks = xid not in self._ignored
            _log.log(40 if speaks else 20, "gpu_xid", gpu=uuid, xid=xid, effect="not offered" if speaks else "none")
            for gpu in self._gpus:
                if gpu.device.id == uuid and speaks:
                    gpu.xid = self._xids[uuid] = xid

    def _look(self) -> tuple[list[Device], bool]:
        """What each GPU says now, and whether one doesn't any more."""
        import pynvml

        found: list[Device] = []
        lost = False
        for gpu in self._gpus:
            try:
                health = f"Xid {gpu.xid}" if gpu.xid else _find_fault(gpu.handle)
                if _is_partitioned(gpu.handle):
                    found += _read_instances(gpu, health)
                else:
                    found.append(msgspec.structs.replace(gpu.device, health=health))
            except pynvml.NVMLError as error:
                lost = True
                if error.value in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_NOT_FOUND):
                    _log.error("gpu_lost", gpu=gpu.device.id, cause=str(error))
                else:
                    found.append(msgspec.structs.replace(gpu.device, health=f"it can't be read: {error}"))
        return found, lost


def _identify(number: int) -> _Gpu:
    """Raises NVMLError: a GPU may have fallen off the bus."""
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    device = Device(
        id=_text(pynvml.nvmlDeviceGetUUID(handle)),
        model=_text(pynvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        numa_node=_numa_node(handle),
    )
    return _Gpu(handle, _text(pynvml.nvmlDeviceGetPciInfo(handle).busId), device)


def _answers(number: int) -> bool:
    import pynvml

    try:
        pynvml.nvmlDeviceGetHandleByIndex(number)
    except pynvml.NVMLError:
        return False
    return True


def _numa_node(handle: Any) -> int:
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetNumaNodeId(handle))
    except pynvml.NVMLError:
        pass  # an older driver, or a machine without: the kernel knows, too
    return find_numa_node(_text(pynvml.nvmlDeviceGetPciInfo(handle).busId))


def _link_groups(gpus: list[_Gpu]) -> dict[int, int]:
    """Which GPUs reach each other by NVLink, directly or by a switch: the number of the first of each group."""
    import pynvml

    groups = {number: number for number in range(len(gpus))}
    linked: dict[int, None] = {}
    for one in range(len(gpus)):
        for other in range(one + 1, len(gpus)):
            try:
                status = pynvml.nvmlDeviceGetP2PStatus(
                    gpus[one].handle, gpus[other].handle, pynvml.NVML_P2P_CAPS_INDEX_NVLINK
                )
            except pynvml.NVMLError:
                continue
            if status == pynvml.NVML_P2P_STATUS_OK:
                linked[one] = linked[other] = None
                first, second = sorted((groups[one], groups[other]))
                groups = {number: first if group == second else group for number, group in groups.items()}
    return {number: groups[number] for number in linked}


def _find_fault(handle: Any) -> str:
    """What speaks against the GPU; empty if nothing does. Raises NVMLError if it doesn't answer at all."""
    import pynvml

    pynvml.nvmlDeviceGetMemoryInfo(handle)
    for look in (_failed_remapping, _uncorrected_errors):
        try:
            if fault := look(handle):
                return fault
        except pynvml.NVMLError as error:
            if error.value not in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                raise
    return ""


def _failed_remapping(handle: Any) -> str:
    import pynvml

    _, _, _, failed = pynvml.nvmlDeviceGetRemappedRows(handle)
    return "a broken row of its memory can't be replaced" if failed else ""


def _uncorrected_errors(handle: Any) -> str:
    import pynvml

    count = pynvml.nvmlDeviceGetTotalEccErrors(
        handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    )
    return f"{count} uncorrected memory errors (ECC) since the driver was loaded" if count else ""


def _is_partitioned(handle: Any) -> bool:
    import pynvml

    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except pynvml.NVMLError as error:
        if error.value in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return False
        raise


def _read_instances(gpu: _Gpu, health: str) -> Iterator[Device]:
    """The MIG instances of a GPU, each named after its profile: `mig-1g.10gb`."""
    import pynvml

    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, number)
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_NOT_FOUND:
                continue
            raise
        name, uuid = _text(pynvml.nvmlDeviceGetName(handle)), _text(pynvml.nvmlDeviceGetUUID(handle))
        profile = _PROFILE.search(name)
        yield Device(
            id=uuid,
            kind=MIG + (profile.group(1).replace("+", ".") if profile else "unknown"),
            visible=uuid,
            model=name,
            memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            numa_node=gpu.device.numa_node,
            health=health,
        )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
