"""What this machine offers, and what of it is in use."""

from __future__ import annotations

import os
import socket

import psutil
import structlog

import hasched
from hasched.agent.config import AgentConfig
from hasched.agent.machine import find_attributes, find_numa_node
from hasched.agent.processes import boot_id
from hasched.model.spec import Resources
from hasched.model.taints import parse_taint
from hasched.model.wire import GpuDevice, NodeInfo, NodeUsage

_log = structlog.get_logger(__name__)


def discover(config: AgentConfig, isolation: str) -> NodeInfo:
    """The node as the managers see it: found on the machine, unless the configuration says otherwise."""
    capacity = config.capacity
    gpus = find_gpus()
    return NodeInfo(
        hostname=socket.gethostname(),
        agent_version=hasched.__version__,
        resources=Resources(
            cpu_milli=len(os.sched_getaffinity(0)) * 1000 if capacity.cpu is None else capacity.cpu,
            memory_bytes=psutil.virtual_memory().total if capacity.memory is None else capacity.memory,
            gpus=len(gpus) if capacity.gpus is None else capacity.gpus,
            countables=tuple(sorted(capacity.countables.items())),
            disk_bytes=find_disk_bytes(config.data_dir) if capacity.disk is None else capacity.disk,
        ),
        address=config.address,
        labels=dict(sorted(config.labels.items())),
        gpus=gpus if capacity.gpus is None else gpus[: capacity.gpus],
        isolation=isolation,
        boot_id=boot_id(),
        pool=config.pool,
        taints=tuple(map(parse_taint, sorted(config.taints))),
        attributes={**find_attributes(), **dict(sorted(config.attributes.items()))},
    )


def find_disk_bytes(data_dir: str) -> int:
    """The size of the file system that tasks write to, less what is kept for root, in whole MiB; 0 if it can't be asked."""
    try:
        disk = os.statvfs(data_dir)
    except OSError:
        return 0
    return (disk.f_blocks - (disk.f_bfree - disk.f_bavail)) * disk.f_frsize >> 20 << 20


def find_gpus() -> tuple[GpuDevice, ...]:
    """The NVIDIA devices in PCI bus order; none where the driver is missing. One that fails hides no other."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        found = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            try:
                found.append(_read_gpu(number))
            except pynvml.NVMLError as error:
                _log.error("gpu_not_read", number=number, cause=str(error), effect="it is not offered")
        return tuple(gpu for _, gpu in sorted(found, key=lambda each: each[0]))
    except pynvml.NVMLError as error:
        _log.error("gpus_not_read", cause=str(error))
        return ()
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(number: int) -> tuple[str, GpuDevice]:
    """The device with its PCI bus id. Raises NVMLError: a GPU may have fallen off the bus."""
    import pynvml

    device = pynvml.nvmlDeviceGetHandleByIndex(number)
    bus_id = _text(pynvml.nvmlDeviceGetPciInfo(device).busId)
    gpu = GpuDevice(
        _text(pynvml.nvmlDeviceGetUUID(device)),
        _text(pynvml.nvmlDeviceGetName(device)),
        int(pynvml.nvmlDeviceGetMemoryInfo(device).total),
        numa_node=find_numa_node(bus_id),
    )
    return bus_id, gpu


def read_usage(data_dir: str) -> NodeUsage:
    """The machine's usage; CPU is that since the last call."""
    memory = psutil.virtual_memory()
    disk = os.statvfs(data_dir)
    return NodeUsage(
        cpu_milli=round(psutil.cpu_percent() * 10 * (psutil.cpu_count() or 1)),
        memory_bytes=memory.total - memory.available,
        load_milli=round(os.getloadavg()[0] * 1000),
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
