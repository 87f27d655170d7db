"""What devices there are on this machine, looked at again and again: NVIDIA's GPUs, and what plugins say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec
import structlog

from hasched.agent.config import AgentConfig
from hasched.agent.devices import GPU, SHARE, Device, number_gpus
from hasched.agent.nvml import Nvml
from hasched.agent.plugins import PluginResult, Plugins
from hasched.model.wire import GpuDevice, NodeInfo

NVML_PATIENCE_S = 10.0  # a driver with a broken GPU may never answer

_log = structlog.get_logger(__name__)


class Inventory(Protocol):
    """Where an agent learns of its devices."""

    async def read(self) -> Sequence[Device]: ...
    def close(self) -> None: ...


class MachineInventory:
    """One `read` at a time. `results` says what came of each plugin at the last one."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._nvml = Nvml(config.devices.ignore_xids)
        self._reading: asyncio.Future[list[Device]] | None = None
        self._gpus: list[Device] = []  # as they were read last
        self._plugins = Plugins(
            config.devices.plugins, config.path, config.devices.plugin_timeout, config.capacity.countables
        )
        self.results: list[PluginResult] = []

    async def read(self) -> Sequence[Device]:
        gpus, results = await asyncio.gather(self._read_gpus(), self._plugins.ask())
        self._tell(results)
        self.results = results
        return [*choose_gpus(gpus, self._config), *(device for result in results for device in result.devices)]

    def close(self) -> None:
        if self._reading is None or self._reading.done():
            self._nvml.close()

    async def _read_gpus(self) -> list[Device]:
        """In a thread; while an earlier one hangs in the driver, no other is sent after it."""
        if self._config.capacity.gpus == 0:
            return []
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._nvml.read))
        done, _ = await asyncio.wait((self._reading,), timeout=NVML_PATIENCE_S)
        if not done:
            _log.error("gpus_not_read", cause=f"the driver gave no answer within {NVML_PATIENCE_S:g} s")
            return [msgspec.structs.replace(gpu, health="the driver does not answer") for gpu in self._gpus]
        reading, self._reading = self._reading, None
        self._gpus = reading.result()
        return self._gpus

    def _tell(self, results: Iterable[PluginResult]) -> None:
        """Of a plugin's failures and recoveries, once each."""
        before = {result.plugin: result.error for result in self.results}
        for result in results:
            if result.error and before.get(result.plugin) != result.error:
                _log.error("device_plugin_refused", plugin=result.plugin, cause=result.error)
            elif not result.error and before.get(result.plugin, "never asked"):
                _log.info("device_plugin_answers", plugin=result.plugin, resource=result.resource)


def choose_gpus(found: Sequence[Device], config: AgentConfig) -> list[Device]:
    """What of the GPUs is offered, and how: whole, or those that the configuration wants shared in parts."""
    wanted = config.capacity.gpus
    whole = [device for device in found if device.kind == GPU]
    parts = [device for device in found if device.kind != GPU]
    if wanted is not None:
        whole = whole[:wanted] if wanted <= len(whole) else number_gpus(wanted)
        parts = [] if wanted == 0 else parts
    settings = config.devices
    if settings.gpu_shares:
        chosen = settings.shared_gpus
        whole = [
            msgspec.structs.replace(gpu, kind=SHARE, units=settings.gpu_shares)
            if not chosen or gpu.id in chosen or gpu.visible in chosen
            else gpu
            for gpu in whole
        ]
    return [*whole, *parts]


def describe(info: NodeInfo, devices: Sequence[Device]) -> NodeInfo:
    """The node with these devices. Whole GPUs are counted for themselves, all else by kind beside the node's countables."""
    well = [device for device in devices if not device.health]
    whole = [device for device in well if device.kind == GPU]
    countables = dict(info.resources.countables)
    for device in well:
        if device.kind != GPU:
            countables[device.kind] = countables.get(device.kind, 0) + device.units
    return msgspec.structs.replace(
        info,
        resources=msgspec.structs.replace(
            info.resources, gpus=len(whole), countables=tuple(sorted(countables.items()))
        ),
        gpus=tuple(
            GpuDevice(gpu.id, gpu.model, gpu.memory_bytes, gpu.numa_node, gpu.nvlink_group)
            for gpu in whole
            if not gpu.id.isdigit()
        ),
        devices=tuple(device.info for device in devices if device.kind != GPU or device.health),
    )


def devices_of(info: NodeInfo) -> list[Device]:
    """The devices that a description names: of a node that pretends."""
    named = [
        Device(
            id=gpu.uuid,
            visible=str(number),
            model=gpu.model,
            memory_bytes=gpu.memory_bytes,
            numa_node=gpu.numa_node,
            nvlink_group=gpu.nvlink_group,
        )
        for number, gpu in enumerate(info.gpus)
    ]
    return named if len(named) == info.resources.gpus else number_gpus(info.resources.gpus)
