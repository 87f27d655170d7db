"""Inventories: what an agent may say of its node. It is authenticated, and it may still be broken, or not what it claims to be.

What is kept of a node goes into every snapshot and every list of nodes, and its amounts into sums; so all of it is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hasched.model.ids import is_name
from hasched.model.units import MAX_INTEGER
from hasched.model.wire import DeviceInfo, GpuDevice, NodeInfo

INVENTORIES_BOUNDED_SINCE = 2  # the version of entries; before, only their amounts were looked at
MAX_TAINTS = 32
MAX_DEVICES = 4096
MAX_GPUS = 1024
MAX_COUNTABLES = 256
MAX_ATTRIBUTES = 64
MAX_NAME_CHARS = 128
MAX_ATTRIBUTE_CHARS = 512
MAX_HEALTH_CHARS = 1000
MAX_TEXT_CHARS = 256 * 1024  # of all GPUs and devices together


def find_fault(info: NodeInfo, version: int) -> str | None:
    """What keeps the inventory from being taken in an entry of this version, as words behind "it holds"; None if nothing does."""
    total = info.resources
    amounts = (total.cpu_milli, total.memory_bytes, total.gpus, *(n for _, n in total.countables))
    if not all(0 <= amount <= MAX_INTEGER for amount in amounts):
        return "an impossible amount"
    if version < INVENTORIES_BOUNDED_SINCE:
        return None
    return next(_faults(info), None)


def _faults(info: NodeInfo) -> Iterator[str]:
    total = info.resources
    if not 0 <= total.disk_bytes <= MAX_INTEGER or total.picks_gpus:
        yield "an impossible amount"
    names = [name for name, _ in total.countables]
    if len(names) > MAX_COUNTABLES or names != sorted(dict.fromkeys(names)) or not all(map(is_name, names)):
        yield f"countables that can't be named so, stand twice, or are more than {MAX_COUNTABLES}"
    if any(len(text) > MAX_NAME_CHARS for text in (info.agent_version, info.isolation, info.boot_id, info.table_id)):
        yield f"a version or an id of more than {MAX_NAME_CHARS} characters"
    if not is_name(info.pool):
        yield "a pool or a taint that can't be named so"
    for host in (info.hostname, info.address):
        if len(host) > MAX_ATTRIBUTE_CHARS or not host.isprintable() or " " in host:
            yield "an address that is none"
    if len(info.taints) > MAX_TAINTS or not all(
        is_name(taint.key) and len(taint.value) <= MAX_ATTRIBUTE_CHARS for taint in info.taints
    ):
        yield "a pool or a taint that can't be named so"
    if _is_too_much(info.attributes) or _is_too_much(info.labels):
        yield "too much to say of its attributes and labels"
    if len(info.gpus) > MAX_GPUS or len(info.devices) > MAX_DEVICES:
        yield f"more than {MAX_GPUS} GPUs or {MAX_DEVICES} devices"
    if not all(map(_is_sound_gpu, info.gpus)) or not all(map(_is_sound_device, info.devices)):
        yield "a device with a name or an amount out of bounds"
    texts = [len(gpu.uuid) + len(gpu.model) for gpu in info.gpus]
    texts += [len(each.id) + len(each.kind) + len(each.model) + len(each.health) for each in info.devices]
    if sum(texts) > MAX_TEXT_CHARS:
        yield f"more than {MAX_TEXT_CHARS} characters about its devices"


def _is_too_much(said: Mapping[str, str]) -> bool:
    return len(said) > MAX_ATTRIBUTES or any(
        len(name) > MAX_ATTRIBUTE_CHARS or len(value) > MAX_ATTRIBUTE_CHARS for name, value in said.items()
    )


def _is_sound_gpu(gpu: GpuDevice) -> bool:
    return max(len(gpu.uuid), len(gpu.model)) <= MAX_NAME_CHARS and _are_sound(
        gpu.memory_bytes, gpu.numa_node, gpu.nvlink_group
    )


def _is_sound_device(device: DeviceInfo) -> bool:
    return (
        len(device.id) <= MAX_ATTRIBUTE_CHARS
        and max(len(device.kind), len(device.model)) <= MAX_NAME_CHARS
        and len(device.health) <= MAX_HEALTH_CHARS
        and 0 <= device.units <= MAX_INTEGER
        and _are_sound(device.memory_bytes, device.numa_node, device.nvlink_group)
    )


def _are_sound(memory_bytes: int, numa_node: int, nvlink_group: int) -> bool:
    return 0 <= memory_bytes <= MAX_INTEGER and -1 <= numa_node <= MAX_INTEGER and -1 <= nvlink_group <= MAX_INTEGER
