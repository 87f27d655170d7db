"""The nodes of a simulated cluster: what each offers, from a configuration or, by number, of a few common kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import hasched
from hasched.agent.config import Capacity, check_capacity
from hasched.model.config_text import Duration, Size
from hasched.model.errors import FieldError
from hasched.model.ids import is_name
from hasched.model.spec import DEFAULT_POOL, Resources
from hasched.model.units import format_cpu
from hasched.model.wire import GpuDevice, NodeInfo

RACK_NODES = 8  # in one rack
ZONE_RACKS = 4  # in one zone
GIB = 2**30
NUMA_NODES = 2  # of a node with GPUs, each with half of them
MAX_NODES = 2_000  # streams of one process; more want another process


class PretendNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One node that pretends. Its certificate is NAME.crt in the folder `certs` of the configuration."""

    name: str
    capacity: Capacity = Capacity()
    gpu_model: str = ""
    gpu_memory: Size = 0  # of each
    nvlink: bool = True  # whether all GPUs are linked, or none
    labels: dict[str, str] = {}
    pool: str = DEFAULT_POOL
    attributes: dict[str, str] = {}


class PretendConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that `hasched agent simulate` needs to know."""

    data_dir: str
    certs: str  # the folder with ca.crt and each node's NAME.crt and NAME.key
    managers: list[str]
    nodes: list[PretendNode]
    reconnect_max: Duration = 5_000


def check(config: PretendConfig) -> Iterator[FieldError]:
    """What is wrong with values that have the right types."""
    for field, path in (("data_dir", config.data_dir), ("certs", config.certs)):
        if not path.startswith("/"):
            yield FieldError(field, "must be an absolute path")
    if not config.managers:
        yield FieldError("managers", "name at least one manager, as https://HOST:7411")
    if not 0 < len(config.nodes) <= MAX_NODES:
        yield FieldError("nodes", f"there must be 1 to {MAX_NODES} of them")
    known: dict[str, None] = {}
    for number, node in enumerate(config.nodes):
        place = f"nodes[{number}]"
        if not is_name(node.name):
            yield FieldError(f"{place}.name", f"{node.name!r} can't be a node's name")
        if node.name in known:
            yield FieldError(f"{place}.name", f"{node.name!r} is there twice")
        known[node.name] = None
        yield from check_capacity(node.capacity, f"{place}.capacity")


def describe(node: PretendNode) -> NodeInfo:
    """As the managers see it. What its capacity leaves out it doesn't have."""
    capacity = node.capacity
    gpus = capacity.gpus or 0
    return NodeInfo(
        hostname=node.name,
        agent_version=hasched.__version__,
        resources=Resources(
            cpu_milli=capacity.cpu or 0,
            memory_bytes=capacity.memory or 0,
            gpus=gpus,
            countables=tuple(sorted(capacity.countables.items())),
            disk_bytes=capacity.disk or 0,
        ),
        labels=dict(sorted(node.labels.items())),
        gpus=tuple(
            GpuDevice(
                f"GPU-{node.name}-{number}",
                node.gpu_model or "simulated",
                node.gpu_memory,
                numa_node=number * NUMA_NODES // gpus,
                nvlink_group=0 if node.nvlink else -1,
            )
            for number in range(gpus)
        ),
        pool=node.pool,
        attributes=dict(sorted(node.attributes.items())),
        boot_id="simulated",
        table_id=f"simulated-{node.name}",
    )


def document(node: PretendNode) -> dict[str, Any]:
    """The node as a configuration says it."""
    plain: dict[str, Any] = msgspec.to_builtins(node)
    if node.capacity.cpu is not None:
        plain["capacity"]["cpu"] = format_cpu(node.capacity.cpu)
    return plain


class Kind(NamedTuple):
    """A kind of node that many clusters have."""

    name: str
    cpus: int
    memory_gib: int
    disk_gib: int
    gpus: int = 0
    gpu_model: str = ""
    gpu_gib: int = 0
    nvlink: bool = True
    countables: Mapping[str, int] = {}


KINDS = (
    Kind("standard", 32, 128, 900),
    Kind("compute", 64, 256, 900),
    Kind("a100", 128, 1024, 7000, 8, "NVIDIA A100-SXM4-80GB", 80),
    Kind("h100", 192, 2048, 14000, 8, "NVIDIA H100 80GB HBM3", 80),
    Kind("t4", 32, 128, 900, 4, "Tesla T4", 15, nvlink=False),
    Kind("highmem", 64, 1024, 3500, countables={"licence": 4}),
    Kind("shared", 64, 512, 1800, countables={"mig-1g.10gb": 14, "gpu-share": 8}),  # GPUs in slices and in shares
)


def common_nodes(count: int) -> list[PretendNode]:
    """`count` nodes s1, s2, …: the kinds in turn, eight in a rack, four racks in a zone."""
    return [_common(number) for number in range(count)]


def _common(number: int) -> PretendNode:
    kind = KINDS[number % len(KINDS)]
    rack = number // RACK_NODES
    return PretendNode(
        name=f"s{number + 1}",
        capacity=Capacity(
            cpu=kind.cpus * 1000,
            memory=kind.memory_gib * GIB,
            gpus=kind.gpus,
            disk=kind.disk_gib * GIB,
            countables=dict(kind.countables),
        ),
        gpu_model=kind.gpu_model,
        gpu_memory=kind.gpu_gib * GIB,
        nvlink=kind.nvlink,
        labels={"kind": kind.name, "rack": f"r{rack + 1}", "zone": f"z{rack // ZONE_RACKS + 1}", "simulated": "true"},
        attributes={"os": "debian-12", "arch": "amd64", "interconnect": "infiniband" if kind.gpus > 4 else "100GbE"},
    )


def certificate(config: PretendConfig, node: PretendNode) -> tuple[str, str, str]:
    """CA, certificate and key."""
    folder = Path(config.certs)
    return str(folder / "ca.crt"), str(folder / f"{node.name}.crt"), str(folder / f"{node.name}.key")
