"""The agent's configuration: what a YAML file may say, its defaults, and what the types alone can't check.

Relative paths of the TLS files count from the file's own directory.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hasched.client.files import read_config
from hasched.model.config_text import Cpu, Duration, Size, load_config
from hasched.model.errors import FieldError
from hasched.model.ids import is_name
from hasched.model.spec import DEFAULT_POOL
from hasched.model.taints import parse_taint

MAX_TAINTS = 32
MAX_OWN_ATTRIBUTES = 48  # others are found
MAX_LABELS = 64
MAX_ATTRIBUTE_CHARS = 256


class Isolation(StrEnum):
    """How the limits of a task are enforced."""

    AUTO = "auto"  # cgroups where they can really be used, rlimits otherwise
    RLIMIT = "rlimit"  # rlimits only


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cluster's CA, and this agent's certificate and key (PEM)."""

    ca: str
    cert: str
    key: str


MAX_ADDRESS_CHARS = 253


class Capacity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the node offers. What is left out is discovered from the machine."""

    cpu: Cpu | None = None
    memory: Size | None = None
    gpus: int | None = None
    disk: Size | None = None  # that tasks may ask for; by default the file system of `data_dir`
    countables: dict[str, int] = {}


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the tasks' output is kept: per stream of an attempt, and for how long after its end."""

    max_bytes: Size = 256 * 1024 * 1024
    keep: Duration = 7 * 86_400_000
    keep_bytes: Size = 20 * 1024**3


class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices beside what is found by itself. A shared GPU is offered as so many of the countable `gpu-share`."""

    refresh: Duration = 10_000  # between two looks at what there is and how it is
    plugins: str = ""  # directory of executables that say what else there is; empty: none
    plugin_timeout: Duration = 10_000
    gpu_shares: int = 0  # of each shared GPU; 0: none is shared
    shared_gpus: list[str] = []  # by UUID, or number in the order of the PCI bus; empty: all
    ignore_xids: list[int] = []  # errors of GPUs that don't speak against them, beside those of applications


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that `hasched agent start` needs to know."""

    data_dir: str
    managers: list[str]  # API addresses: https://m1:7411
    tls: TlsFiles
    name: str = ""  # the node id, as in the certificate; empty: the host's name
    address: str = ""  # how tasks on other nodes reach this one; empty: by the host's name
    pool: str = DEFAULT_POOL
    labels: dict[str, str] = {}
    taints: list[str] = []  # KEY or KEY=VALUE, with :avoid behind it for one that only makes the node a last resort
    attributes: dict[
        str, str
    ] = {}  # that constraints can ask for beside those that are found; commas part several values
    capacity: Capacity = Capacity()
    devices: DeviceSettings = DeviceSettings()
    isolation: Isolation = Isolation.AUTO
    pids_max: int = 0  # processes of one task, where cgroups are used; 0: no limit
    logs: LogSettings = LogSettings()
    path: str = (
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the tasks' PATH, unless a job sets its own
    )
    reconnect_max: Duration = 5_000  # the longest pause between two tries to reach a manager

    @property
    def node_id(self) -> str:
        return self.name or socket.gethostname()


def load_agent_config(path: Path, env: Mapping[str, str]) -> AgentConfig:
    """The file at `path` under the overrides in `env`, its paths made absolute. Raises ConfigInvalid."""
    loaded = load_config(read_config(path), str(path), AgentConfig, env, check)
    base, files = path.parent.absolute(), loaded.tls
    tls = TlsFiles(ca=str(base / files.ca), cert=str(base / files.cert), key=str(base / files.key))
    return msgspec.structs.replace(loaded, tls=tls)


def check(config: AgentConfig) -> Iterator[FieldError]:
    """What is wrong with values that have the right types."""
    if not is_name(config.node_id):
        yield FieldError("name", f"{config.node_id!r} can't be a node's name; use letters, digits, '.', '_' and '-'")
    if not config.data_dir.startswith("/"):
        yield FieldError("data_dir", "must be an absolute path")
    if not config.managers:
        yield FieldError("managers", "name at least one manager, as https://HOST:7411")
    for number, address in enumerate(config.managers):
        parts = urlsplit(address)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            yield FieldError(f"managers[{number}]", f"{address!r} is not an address like https://HOST:7411")
    if len(config.address) > MAX_ADDRESS_CHARS or any(char.isspace() for char in config.address):
        yield FieldError("address", "must be one host name or IP address")
    for name in config.labels:
        if not is_name(name):
            yield FieldError("labels", f"{name!r} can't be a name")
    yield from check_capacity(config.capacity, "capacity")
    yield from _check_placement(config)
    yield from _check_devices(config.devices)
    if config.pids_max < 0:
        yield FieldError("pids_max", "must be zero or more")
    if config.logs.max_bytes < 64 * 1024:
        yield FieldError("logs.max_bytes", "must be 64Ki or more")


def check_capacity(capacity: Capacity, place: str) -> Iterator[FieldError]:
    """What is wrong with what a node is said to offer."""
    for name, amount in capacity.countables.items():
        if not is_name(name):
            yield FieldError(f"{place}.countables", f"{name!r} can't be a name")
        if amount < 1:
            yield FieldError(f"{place}.countables.{name}", "must be 1 or more")
    if capacity.gpus is not None and capacity.gpus < 0:
        yield FieldError(f"{place}.gpus", "must be zero or more")


def _check_placement(config: AgentConfig) -> Iterator[FieldError]:
    """What placement rules look at."""
    if not is_name(config.pool):
        yield FieldError("pool", f"{config.pool!r} can't be a name")
    for number, taint in enumerate(config.taints):
        try:
            parse_taint(taint)
        except ValueError as error:
            yield FieldError(f"taints[{number}]", str(error))
    for name, value in config.attributes.items():
        if not is_name(name):
            yield FieldError("attributes", f"{name!r} can't be a name")
        elif len(value) > MAX_ATTRIBUTE_CHARS or not value.isprintable():
            yield FieldError(
                f"attributes.{name}", f"must be at most {MAX_ATTRIBUTE_CHARS} characters that can be printed"
            )
    for name, value in config.labels.items():
        if len(value) > MAX_ATTRIBUTE_CHARS:
            yield FieldError(f"labels.{name}", f"must be at most {MAX_ATTRIBUTE_CHARS} characters")
    for key, number, most in (
        ("taints", len(config.taints), MAX_TAINTS),
        ("attributes", len(config.attributes), MAX_OWN_ATTRIBUTES),
        ("labels", len(config.labels), MAX_LABELS),
    ):
        if number > most:
            yield FieldError(key, f"has {number} entries, and may have {most}")


def _check_devices(devices: DeviceSettings) -> Iterator[FieldError]:
    if devices.refresh < 1_000:
        yield FieldError("devices.refresh", "must be 1s or more")
    if devices.plugin_timeout < 100:
        yield FieldError("devices.plugin_timeout", "must be 100ms or more")
    if devices.plugins and not devices.plugins.startswith("/"):
        yield FieldError("devices.plugins", "must be an absolute path")
    if devices.gpu_shares < 0 or devices.gpu_shares == 1:
        yield FieldError("devices.gpu_shares", "must be 0, or 2 and more")
    if devices.shared_gpus and not devices.gpu_shares:
        yield FieldError("devices.shared_gpus", "say with gpu_shares into how many")
