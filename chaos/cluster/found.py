"""The daemons of a running cluster on this machine, known by what they were started with.

A daemon is `hasched manager|agent start --config FILE`, and its file says which cluster it is of: same authority, same
addresses, a name that the cluster knows. A name alone says nothing: another cluster on this machine has an m1 too.
"""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chaos.safety.identity import Born, born

KINDS = ("manager", "agent")


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster as its API describes it. `managers` are API URLs by name; `ca` is the path of its authority."""

    cluster: str
    managers: dict[str, str]
    agents: list[str]
    ca: str


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    process: Born
    kind: str  # manager, agent
    name: str
    data_dir: str
    uid: int


class Found(msgspec.Struct, kw_only=True):
    """By name. `not_ours` says why we may not signal those that are here and belong to somebody else; `unseen` are daemons
    of some cluster whose files we may not read."""

    daemons: dict[str, Daemon] = {}
    not_ours: dict[str, str] = {}
    unseen: list[str] = []

    def why_not(self, name: str) -> str:
        """Why this one can't be signalled."""
        known = self.not_ours.get(name, f"{name} was not found on this machine")
        if name in self.not_ours or not self.unseen:
            return known
        return f"{known}, as far as you may look: {'; '.join(self.unseen)}"


class _Member(msgspec.Struct, frozen=True):
    name: str = ""
    api: str = ""


class _Tls(msgspec.Struct, frozen=True):
    ca: str = ""


class _Written(msgspec.Struct, frozen=True):
    """What we need to know of either configuration file."""

    cluster: str = ""
    name: str = ""
    data_dir: str = ""
    members: list[_Member] = []
    managers: list[str] = []
    tls: _Tls = _Tls()


def find(sought: Sought) -> Found:
    """Those of this machine that are of the cluster. Of two that claim a name, the older one: it holds the data."""
    found = Found()
    candidates = [started for started in map(_started, _pids()) if started is not None]
    for process, kind, path in sorted(candidates, key=lambda each: each[0].started):
        try:
            daemon = _daemon(process, kind, path, sought)
        except PermissionError:
            found.unseen.append(f"{process} is a {kind} of another user ({path})")
            continue
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue  # it has ended, or its file isn't one: it is no daemon of this cluster
        if daemon is None or daemon.name in found.daemons:
            continue
        if _may_signal(process):
            found.daemons[daemon.name] = daemon
        else:
            found.not_ours[daemon.name] = f"{daemon.name} is {process} of another user"
    return found


def _daemon(process: Born, kind: str, path: str, sought: Sought) -> Daemon | None:
    """Raises OSError and msgspec's errors if its file can't be read."""
    file = _seen_by(process, path)
    written = msgspec.yaml.decode(file.read_bytes(), type=_Written)
    overrides = _overrides(process)
    name = overrides.get("HASCHED_NAME", written.name)
    if kind == "manager":
        api = next((each.api for each in written.members if each.name == name), "")
        wanted = sought.managers.get(name)
        same = overrides.get("HASCHED_CLUSTER", written.cluster) == sought.cluster and wanted == _plain(api)
    else:
        name = name or os.uname().nodename
        managers = overrides.get("HASCHED_MANAGERS", "").split(",") if "HASCHED_MANAGERS" in overrides else None
        urls = [_plain(url.strip()) for url in managers or written.managers]
        same = name in sought.agents and any(url in sought.managers.values() for url in urls)
    ca = overrides.get("HASCHED_TLS__CA", written.tls.ca)
    if not same or not _shares_authority(_seen_by(process, str(Path(path).parent / ca)), Path(sought.ca)):
        return None
    if born(process.pid) != process:
        return None
    data_dir = overrides.get("HASCHED_DATA_DIR", written.data_dir)
    uid = Path(f"/proc/{process.pid}").stat().st_uid
    return Daemon(process=process, kind=kind, name=name, data_dir=data_dir, uid=uid)


def parse_command(words: list[str]) -> tuple[str, str] | None:
    """(kind, configuration file) if this is the command line of a daemon; not of a tool that runs or traces one."""
    if not words:
        return None
    program, rest = Path(words[0]).name, words[1:]
    if program.startswith("python"):
        while rest and rest[0].startswith("-") and rest[0] != "-m":
            rest = rest[2:] if rest[0] in ("-X", "-W") else rest[1:]
        if rest[:2] == ["-m", "hasched"]:
            rest = rest[2:]
        elif rest and Path(rest[0]).name == "hasched":
            rest = rest[1:]
        else:
            return None
    elif program != "hasched":
        return None
    for kind in KINDS:
        if kind in rest and rest[rest.index(kind) + 1 : rest.index(kind) + 2] == ["start"]:
            path = _option(rest, "--config")
            return (kind, path) if path else None
    return None


def _option(words: list[str], name: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def _started(pid: int) -> tuple[Born, str, str] | None:
    process = born(pid)
    if process is None:
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    except OSError:
        return None
    parsed = parse_command(words)
    return (process, *parsed) if parsed is not None else None


def _seen_by(process: Born, path: str) -> Path:
    """A path as the process means it, whatever its directory and root are."""
    if path.startswith("/"):
        return Path(f"/proc/{process.pid}/root{path}")
    return Path(f"/proc/{process.pid}/cwd/{path}")


def _overrides(process: Born) -> Mapping[str, str]:
    entries = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace").split("\0")
    pairs = [entry.partition("=") for entry in entries if entry.startswith("HASCHED_")]
    return {name: value for name, _, value in pairs}


def _shares_authority(one: Path, other: Path) -> bool:
    ours, theirs = _certificates(one), _certificates(other)
    return any(certificate in theirs for certificate in ours)


def _certificates(path: Path) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=path)
    return context.get_ca_certs(binary_form=True)


def _may_signal(process: Born) -> bool:
    """Signal 0 only asks."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        signal.pidfd_send_signal(handle, 0)
    except (PermissionError, ProcessLookupError):
        return False
    finally:
        os.close(handle)
    return True


def _plain(url: str) -> str:
    return url.removesuffix("/")


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
