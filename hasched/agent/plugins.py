"""Device plugins: executables that say what devices there are and how they are, as JSON.

Each file in the plugins' directory that can be executed is run every now and then, without arguments, as the user of the
agent and without a shell. What it prints is the whole answer. One that fails, takes too long, says too much or something else
than it should is refused and logged; its devices are not offered until it is well again, and what holds them goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import stat
from collections.abc import Container
from pathlib import Path

import msgspec

from hasched.agent.devices import GPU, OWN, SHARE, Device
from hasched.agent.nvml import MIG
from hasched.model.ids import is_name
from hasched.model.units import MAX_INTEGER

VERSION = 1
MAX_OUTPUT_BYTES = 256 * 1024
MAX_COMPLAINT_BYTES = 4096
MAX_DEVICES = 1024
MAX_UNITS = 1024

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")
_OURS = ("HASCHED_", "LD_", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
_THEIRS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "PWD", "TMPDIR", "IFS", "ENV", "BASH_ENV", "PYTHONPATH")


class PluginDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`health` says why it can't be used; empty or left out: it can. `units`: how many may share it."""

    id: str
    health: str = ""
    units: int = 1
    model: str = ""
    memory_bytes: int = 0
    numa_node: int = -1


class PluginAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`resource` is what jobs ask for; `env` the variable that names a task's devices, by their ids, with commas between."""

    version: int
    resource: str
    devices: list[PluginDevice]
    env: str = ""


class PluginFailed(Exception):
    """What is wrong, in a sentence."""


class PluginResult(msgspec.Struct, frozen=True):
    """What came of one plugin. `devices` are the last that it named, not offered where there is an `error`."""

    plugin: str
    resource: str = ""
    devices: tuple[Device, ...] = ()
    error: str = ""


class Plugins:
    """`taken` are the countables of the configuration; a plugin can't offer more of them."""

    def __init__(self, directory: str, path: str, timeout_ms: int, taken: Container[str] = ()) -> None:
        self._directory = directory
        self._environment = {"PATH": path, "LANG": "C.UTF-8", "HASCHED_PLUGIN_VERSION": str(VERSION)}
        self._timeout_s = timeout_ms / 1000
        self._taken = taken
        self._known: dict[str, PluginResult] = {}  # the last answer of each that was good

    async def ask(self) -> list[PluginResult]:
        """What each of them says now, in the order of their names."""
        if not self._directory:
            return []
        try:
            files = sorted(path for path in Path(self._directory).iterdir() if not path.name.startswith("."))
        except OSError as error:
            return [PluginResult(self._directory, error=f"the directory can't be read: {error.strerror}")]
        answers = await asyncio.gather(*(self._ask_one(path) for path in files))
        owners: dict[str, str] = {}
        results = []
        for path, answer in zip(files, answers, strict=True):
            if isinstance(answer, str):
                results.append(self._fail(path.name, answer))
            elif owners.setdefault(answer.resource, path.name) != path.name:
                results.append(self._fail(path.name, f"{answer.resource} is what {owners[answer.resource]} offers"))
            else:
                self._known[path.name] = answer
                results.append(answer)
        self._known = {path.name: self._known[path.name] for path in files if path.name in self._known}
        return results

    def _fail(self, name: str, error: str) -> PluginResult:
        known = self._known.get(name, PluginResult(name))
        health = f"its plugin failed: {error}"
        devices = tuple(msgspec.structs.replace(device, health=health) for device in known.devices)
        return PluginResult(name, known.resource, devices, error)

    async def _ask_one(self, path: Path) -> PluginResult | str:
        try:
            check_file(path)
            output = await self._run(path)
            return self._read(path.name, output)
        except PluginFailed as error:
            return str(error)
        except OSError as error:
            return f"it can't be run: {error.strerror or error}"

    async def _run(self, path: Path) -> bytes:
        """What it prints. Raises PluginFailed, OSError."""
        transport, listener = await asyncio.get_running_loop().subprocess_exec(
            _Listener,
            str(path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env=self._environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await listener.said_all.wait()
        except TimeoutError:
            raise PluginFailed(f"it gave no answer within {self._timeout_s:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(transport.get_pid(), signal.SIGKILL)  # and whatever it has left behind
            transport.close()  # whoever still holds its pipes is not waited for
            await listener.ended.wait()
        if len(listener.output) > MAX_OUTPUT_BYTES:
            raise PluginFailed(f"it writes more than {MAX_OUTPUT_BYTES} bytes on its standard output")
        if code := transport.get_returncode():
            said = listener.complaint.decode(errors="replace").strip().splitlines()
            raise PluginFailed(f"it ended with code {code}" + (f": {said[-1][:200]}" if said else ""))
        return bytes(listener.output)

    def _read(self, name: str, output: bytes) -> PluginResult:
        """The devices of an answer. Raises PluginFailed."""
        try:
            version = msgspec.json.decode(output, type=_OnlyVersion).version
            if version != VERSION:
                raise PluginFailed(f"it speaks version {version}; {VERSION} is known here")
            answer = msgspec.json.decode(output, type=PluginAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PluginFailed(f"its answer can't be understood: {str(error).replace('`', '')}") from None
        if (fault := self._find_fault(answer)) is not None:
            raise PluginFailed(fault)
        return PluginResult(
            name,
            answer.resource,
            tuple(
                Device(
                    id=f"{answer.resource}{OWN}{device.id}",
                    kind=answer.resource,
                    units=device.units,
                    name=device.id,
                    variable=answer.env,
                    model=device.model[:128],
                    memory_bytes=device.memory_bytes,
                    numa_node=device.numa_node,
                    health=device.health[:200],
                )
                for device in answer.devices
            ),
        )

    def _find_fault(self, answer: PluginAnswer) -> str | None:
        resource, env = answer.resource, answer.env
        if not is_name(resource) or resource in (GPU, SHARE) or resource.startswith(MIG):
            return f"{resource[:80]!r} can't be the name of a resource"
        if resource in self._taken:
            return f"{resource} is a countable of the agent's configuration already"
        if env and (not _VARIABLE.fullmatch(env) or env.startswith(_OURS) or env in _THEIRS):
            return f"{env[:80]!r} can't be its environment variable"
        if len(answer.devices) > MAX_DEVICES:
            return f"{len(answer.devices)} devices are too many; {MAX_DEVICES} are taken"
        for device in answer.devices:
            if not _ID.fullmatch(device.id):
                return f"{device.id[:80]!r} can't be the id of a device"
            if (
                not 1 <= device.units <= MAX_UNITS
                or not 0 <= device.memory_bytes <= MAX_INTEGER
                or not -1 <= device.numa_node <= MAX_UNITS
            ):
                return f"device {device.id} has an impossible amount"
        ids = [device.id for device in answer.devices]
        if len(set(ids)) < len(ids):
            return "it names a device twice"
        return None


class _OnlyVersion(msgspec.Struct):
    version: int


def check_file(path: Path) -> None:
    """Who may change the file may run anything as the agent. Raises PluginFailed, OSError."""
    for each in (path.resolve(), path.resolve().parent):
        state = each.stat()
        if state.st_uid not in (0, os.geteuid()) or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PluginFailed(f"others than root and the agent's user may change {each}; take that right from them")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise PluginFailed("it is not an executable file")


class _Listener(asyncio.SubprocessProtocol):
    """Hears what a plugin prints. `said_all`: it has ended and closed its pipes, or has said more than is taken."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.complaint = bytearray()
        self.said_all = asyncio.Event()
        self.ended = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd != 1:
            self.complaint += data[: MAX_COMPLAINT_BYTES - len(self.complaint)]
        elif len(self.output) <= MAX_OUTPUT_BYTES:
            self.output += data
            if len(self.output) > MAX_OUTPUT_BYTES:
                self.said_all.set()

    def process_exited(self) -> None:
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.said_all.set()
