"""The ways back: what undoes a fault, as values that can be written to disk before the harm.

Each can be performed any number of times, by anybody who may: what is undone already is left alone. None of them touches
what a harness can't have made: processes are known by their start time, folders and namespaces by the harness's own names.
"""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar, TypeAlias

import msgspec

from chaos.safety import mounts, traces
from chaos.safety.identity import Born, is_alive, send, wait_until_gone

FOLDER_PREFIX = "hasched-chaos-"
NAME_PREFIX = "hasched"  # of namespaces, interfaces, and tables on the machine itself
KILL_PATIENCE_S = 10.0
TRIES = 10
PAUSE_S = 0.1


class _Undo(msgspec.Struct, frozen=True, tag=True):
    survives_boot: ClassVar[bool] = False  # whether there is something to undo after the machine was restarted

    def perform(self) -> None:
        """Raises OSError if it can't be done, now or at all."""
        raise NotImplementedError


class Thaw(_Undo, frozen=True):
    process: Born

    def perform(self) -> None:
        send(self.process, signal.SIGCONT)

    def __str__(self) -> str:
        return f"let {self.process} go on"


class Kill(_Undo, frozen=True):
    process: Born

    def perform(self) -> None:
        _kill(self.process)

    def __str__(self) -> str:
        return f"kill {self.process}"


class KillMarked(_Undo, frozen=True):
    """Daemons, supervisors and tasks of a cluster that lives in `folder`."""

    folder: str

    def perform(self) -> None:
        _check_folder(self.folder)
        for _ in range(TRIES):  # a task may start children while we look
            found = traces.processes_of(self.folder)
            if not found:
                return
            for process in found:
                _kill(process)
        raise OSError(f"processes of {self.folder} are still starting others")

    def __str__(self) -> str:
        return f"kill what works in {self.folder}"


class FileLimit(_Undo, frozen=True):
    """How many files a process may have open."""

    process: Born
    soft: int
    hard: int

    def perform(self) -> None:
        if is_alive(self.process):
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (self.soft, self.hard))

    def __str__(self) -> str:
        return f"let {self.process} open {self.soft} files"


class Namespace(_Undo, frozen=True):
    """A network namespace, with the processes in it."""

    name: str

    def perform(self) -> None:
        _check_name(self.name)
        if not _has_namespace(self.name):
            return
        for _ in range(TRIES):  # they may start others while we look
            found = traces.residents_of(self.name)
            if not found:
                break
            for process in found:
                _kill(process)
        try:
            _run("ip", "netns", "delete", self.name)
        except OSError:
            if _has_namespace(self.name):
                raise

    def __str__(self) -> str:
        return f"delete the network namespace {self.name} and what runs in it"


class Interface(_Undo, frozen=True):
    name: str

    def perform(self) -> None:
        _check_name(self.name)
        try:
            if self._is_there():
                _run("ip", "link", "delete", self.name)
        except OSError:
            if self._is_there():
                raise

    def _is_there(self) -> bool:
        return (Path("/sys/class/net") / self.name).exists()

    def __str__(self) -> str:
        return f"delete the network interface {self.name}"


class Table(_Undo, frozen=True):
    """An nftables table; `namespace` is empty for that of this machine."""

    namespace: str
    family: str
    name: str

    def perform(self) -> None:
        _check_name(self.namespace or self.name)
        if self.namespace and not _has_namespace(self.namespace):
            return
        within = ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []
        # One transaction, so it works whether the table is there or not.
        lines = "".join(f"{verb} table {self.family} {self.name}\n" for verb in ("add", "delete"))
        _run(*within, "nft", "-f", "-", text=lines)

    def __str__(self) -> str:
        place = f" of {self.namespace}" if self.namespace else ""
        return f"delete the nftables table {self.family} {self.name}{place}"


class Unmount(_Undo, frozen=True):
    """Whatever is mounted at `path`, in layers too, and the loop devices below."""

    path: str
    survives_boot: ClassVar[bool] = True

    def perform(self) -> None:
        _check_within(self.path)
        mounts.unmount(Path(self.path))

    def __str__(self) -> str:
        return f"unmount {self.path}"


class RemoveFile(_Undo, frozen=True):
    path: str
    survives_boot: ClassVar[bool] = True

    def perform(self) -> None:
        _check_within(self.path)
        Path(self.path).unlink(missing_ok=True)

    def __str__(self) -> str:
        return f"remove the file {self.path}"


class RemoveFolder(_Undo, frozen=True):
    """With all that is in it; never across a mount."""

    path: str
    survives_boot: ClassVar[bool] = True

    def perform(self) -> None:
        _check_folder(self.path)
        path = Path(self.path)
        if path.is_symlink():
            raise OSError(f"{path} has become a link")
        below = mounts.below(path)
        if below:
            raise OSError(f"{below[0]} is still mounted")
        for tries_left in reversed(range(TRIES)):  # somebody who is just ending may still write there
            try:
                shutil.rmtree(path)
            except FileNotFoundError:
                if not path.exists():
                    return
            except OSError:
                if not tries_left:
                    raise
            time.sleep(PAUSE_S if path.exists() else 0)

    def __str__(self) -> str:
        return f"remove the folder {self.path}"


Undo: TypeAlias = (  # closed
    Thaw | Kill | KillMarked | FileLimit | Namespace | Interface | Table | Unmount | RemoveFile | RemoveFolder
)


def _kill(process: Born) -> None:
    if send(process, signal.SIGKILL) and not wait_until_gone(process, KILL_PATIENCE_S):
        raise OSError(f"{process} got SIGKILL and is still there after {KILL_PATIENCE_S:.0f} s")


def _has_namespace(name: str) -> bool:
    return (traces.NAMESPACES / name).exists()


def _check_name(name: str) -> None:
    if not name.startswith(NAME_PREFIX) or "/" in name:
        raise OSError(f"{name!r} is not a name that the harness gives")


def _check_folder(path: str) -> None:
    if not _is_plain(path) or not Path(path).name.startswith(FOLDER_PREFIX):
        raise OSError(f"{path!r} is not a folder that the harness makes")


def _check_within(path: str) -> None:
    if not _is_plain(path) or not any(part.startswith(FOLDER_PREFIX) for part in Path(path).parts):
        raise OSError(f"{path!r} is not in a folder that the harness makes")


def _is_plain(path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/")


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
