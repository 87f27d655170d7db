"""What this machine offers, and what of it is in use."""

from __future__ import annotations

import os
import socket

import psutil

import hasched
from hasched.agent.config import AgentConfig
from hasched.agent.machine import find_attributes
from hasched.agent.processes import boot_id
from hasched.model.spec import Resources
from hasched.model.taints import parse_taint
from hasched.model.wire import NodeInfo, NodeUsage


def discover(config: AgentConfig, isolation: str) -> NodeInfo:
    """The node as the managers see it, but for its devices: found on the machine, unless the configuration says otherwise."""
    capacity = config.capacity
    return NodeInfo(
        hostname=socket.gethostname(),
        agent_version=hasched.__version__,
        resources=Resources(
            cpu_milli=len(os.sched_getaffinity(0)) * 1000 if capacity.cpu is None else capacity.cpu,
            memory_bytes=psutil.virtual_memory().total if capacity.memory is None else capacity.memory,
            countables=tuple(sorted(capacity.countables.items())),
            disk_bytes=find_disk_bytes(config.data_dir) if capacity.disk is None else capacity.disk,
        ),
        address=config.address,
        labels=dict(sorted(config.labels.items())),
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
