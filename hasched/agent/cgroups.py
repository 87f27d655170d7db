"""Control groups: memory, process and CPU limits of a task, where this machine really offers them.

`detect` finds out by trying, not by reading versions: it makes a group, sets a limit and moves a process into it. Version
2 is used in a delegated subgroup (`Delegate=yes`, `DelegateSubgroup=agent`) or at the root of the hierarchy; version 1,
also beside a version 2 without controllers, wherever its memory controller lets us.
"""

# Plain strings, not pathlib: these are names of the kernel's control files.
# ruff: noqa: PTH102, PTH106, PTH110, PTH120, PTH208

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hasched.agent import processes

# Moves itself into the groups named before `--`, then becomes the command that follows.
ENTER = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
DELEGATED = "agent"  # the subgroup that systemd starts us in
TASKS = "hasched-tasks"
CPU_SHARES_PER_CORE = 1024


class Limits(NamedTuple):
    memory_bytes: int
    cpu_milli: int
    pids_max: int


class Cgroup:
    """The groups of one task: one directory in version 2, one for each controller in version 1."""

    def __init__(self, directories: Sequence[str], memory: str, version: int) -> None:
        self._directories = directories
        self._memory = memory
        self._version = version

    def enter_command(self, argv: Sequence[str]) -> list[str]:
        """`argv`, begun inside of the groups."""
        entries = [f"{directory}/cgroup.procs" for directory in self._directories]
        return ["/bin/sh", "-c", ENTER, "hasched", *entries, "--", *argv]

    def pids(self) -> list[int]:
        try:
            return [int(pid) for pid in _read(f"{self._memory}/cgroup.procs").split()]
        except FileNotFoundError:
            return []

    def kill(self) -> None:
        """KILL every process inside."""
        if self._version == 2 and os.path.exists(f"{self._memory}/cgroup.kill"):
            _write(f"{self._memory}/cgroup.kill", "1")
            return
        for pid in self.pids():
            processes.send(pid, signal.SIGKILL)

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed for want of memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        for line in _read(f"{self._memory}/{name}").splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0

    def peak_bytes(self) -> int:
        """The most memory that it held, 0 where the kernel doesn't say (version 2 before Linux 5.19)."""
        name = "memory.peak" if self._version == 2 else "memory.max_usage_in_bytes"
        try:
            return int(_read(f"{self._memory}/{name}"))
        except FileNotFoundError:
            return 0

    def remove(self) -> bool:
        """Whether the groups are gone; they can't go before their last process."""
        for directory in self._directories:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                raise
        return True


class Cgroups:
    """Where groups are made. `roots` maps a controller to our directory in its hierarchy."""

    def __init__(self, version: int, roots: dict[str, str]) -> None:
        self.version = version
        self._roots = roots

    def create(self, name: str, limits: Limits) -> Cgroup:
        """New groups with these limits. Raises OSError."""
        cgroup = Cgroup(
            [f"{root}/{name}" for root in dict.fromkeys(self._roots.values())],
            f"{self._roots['memory']}/{name}",
            self.version,
        )
        for root in dict.fromkeys(self._roots.values()):
            os.mkdir(f"{root}/{name}")
        try:
            for controller, file, value in self._settings(limits):
                if controller in self._roots:
                    _write(f"{self._roots[controller]}/{name}/{file}", value)
        except OSError:
            cgroup.remove()
            raise
        return cgroup

    def close(self) -> None:
        """Remove our directories; one that still holds a process stays."""
        for root in dict.fromkeys(self._roots.values()):
            _remove_tree(root)

    def sweep(self) -> None:
        """Remove what supervisors left behind that are gone."""
        for root in dict.fromkeys(self._roots.values()):
            parent = os.path.dirname(root)
            for name in os.listdir(parent):
                pid = name.partition(".")[0]
                if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                    with contextlib.suppress(OSError):  # another user's
                        _remove_tree(f"{parent}/{name}")

    def _settings(self, limits: Limits) -> list[tuple[str, str, str]]:
        settings = []
        if limits.memory_bytes:
            if self.version == 2:
                settings += [("memory", "memory.max", str(limits.memory_bytes)), ("memory", "memory.oom.group", "1")]
            else:
                settings += [("memory", "memory.limit_in_bytes", str(limits.memory_bytes))]
            swap = "memory.swap.max" if self.version == 2 else "memory.memsw.limit_in_bytes"
            if os.path.exists(f"{self._roots['memory']}/{swap}"):
                settings.append(("memory", swap, "0" if self.version == 2 else str(limits.memory_bytes)))
        if limits.pids_max:
            settings.append(("pids", "pids.max", str(limits.pids_max)))
        if limits.cpu_milli:
            if self.version == 2:
                settings.append(("cpu", "cpu.weight", str(min(10_000, max(1, limits.cpu_milli // 10)))))
            else:
                settings.append(("cpu", "cpu.shares", str(max(2, limits.cpu_milli * CPU_SHARES_PER_CORE // 1000))))
        return settings


def detect(name: str) -> Cgroups | None:
    """The control groups that work here, or None. `name` begins with our process id and a dot, and is ours alone."""
    for find in (_version_2, _version_1):
        try:
            cgroups = find(name)
            if cgroups is not None and _works(cgroups):
                cgroups.sweep()
                return cgroups
        except OSError:
            continue  # this version refuses us: not usable here
    return None


def _version_2(name: str) -> Cgroups | None:
    mount = next((point for kind, point, _ in _mounts() if kind == "cgroup2"), None)
    own = _own_groups().get("")
    if mount is None or own is None:
        return None
    base = Path(mount + own)
    if base.name == DELEGATED:
        base = base.parent
    elif own != "/":
        return None  # the group has processes of its own, so it can't hold limited groups
    offered = _read(f"{base}/cgroup.controllers").split()
    if "memory" not in offered:
        return None
    wanted = [controller for controller in ("memory", "pids", "cpu") if controller in offered]
    tasks = base / TASKS / name
    for parent in (base, base / TASKS, tasks):
        parent.mkdir(exist_ok=True)
        _make_enterable(parent)
        _write(f"{parent}/cgroup.subtree_control", " ".join(f"+{controller}" for controller in wanted))
    return Cgroups(2, {controller: str(tasks) for controller in wanted})


def _version_1(name: str) -> Cgroups | None:
    own = _own_groups()
    roots: dict[str, str] = {}
    for kind, point, options in _mounts():
        if kind != "cgroup":
            continue
        for controller in ("memory", "pids", "cpu"):
            if controller in options.split(",") and controller not in roots:
                base = Path(point + own.get(controller, "/"))
                tasks = (base if base.is_dir() else Path(point)) / TASKS / name
                try:
                    tasks.parent.mkdir(exist_ok=True)
                    _make_enterable(tasks.parent)
                    tasks.mkdir(exist_ok=True)
                except OSError:
                    if controller == "memory":
                        raise
                    continue
                roots[controller] = str(tasks)
    return Cgroups(1, roots) if "memory" in roots else None


def _make_enterable(directory: Path) -> None:
    """A directory of ours that hasched 0.1 has made can be entered by root alone."""
    found = directory.stat()
    if not found.st_mode & stat.S_IXUSR and found.st_uid == os.geteuid():
        directory.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRWXU)


def _works(cgroups: Cgroups) -> bool:
    """Whether a limit can be set and a process moved, tried with a real one."""
    cgroup = cgroups.create(f"trial-{os.getpid()}", Limits(64 * 1024 * 1024, 1000, 100))
    argv = cgroup.enter_command(["/bin/true"])
    pid = os.posix_spawn(argv[0], argv, {}, file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 0 and cgroup.remove()


def _remove_tree(root: str) -> None:
    try:
        for entry in os.scandir(root):
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
        os.rmdir(root)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
            raise


def _own_groups() -> dict[str, str]:
    """Our group by controller; the key of version 2 is empty."""
    groups = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = group
    return groups


def _mounts() -> list[tuple[str, str, str]]:
    """(type, mount point, options) of each control group mount."""
    found = []
    for line in _read("/proc/self/mounts").splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind in ("cgroup", "cgroup2"):
            found.append((kind, point, options))
    return found


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)
