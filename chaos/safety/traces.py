"""Which processes work for a cluster that lives in a folder, wherever they were started from; and which run on a host of it.

A daemon has its configuration file among its arguments, a supervisor its data directory, and a task is told where to put
its output. What they started belongs to them. Somebody who only looks into the folder (`tail -f m1.log`) doesn't.
"""

from __future__ import annotations

import os
from pathlib import Path

from chaos.safety.identity import Born, born

NAMESPACES = Path("/run/netns")
SUPERVISOR = "hasched.agent.supervisor"  # the module that an agent starts


def processes_of(folder: str) -> list[Born]:
    """Without this process and those that it descends from."""
    folder = str(Path(folder))
    there = {process.pid: process for process in map(born, _pids()) if process is not None}
    table = {pid: _parent_and_session(pid) for pid in there}
    spared = _line_of(os.getpid(), table)
    marked = {pid for pid in table if pid not in spared and _is_marked(pid, folder)}
    leaders = {pid for pid in marked if table[pid][1] == pid}
    return [
        process  # as it was before we looked: who got its number meanwhile is not meant
        for pid, process in sorted(there.items())  # descendants too, whatever session they made for themselves
        if pid not in spared
        and (table[pid][1] in leaders or any(ancestor in marked for ancestor in _line_of(pid, table)))
    ]


def residents_of(namespace: str) -> list[Born]:
    """Who is in a network namespace; nobody if there is none of that name."""
    try:
        meant = (NAMESPACES / namespace).stat()
    except FileNotFoundError:
        return []
    there = [process for process in map(born, _pids()) if process is not None]
    return [process for process in there if _is_within(process.pid, meant)]  # not who got its number since


def group_of(leader: Born) -> list[Born]:
    """The process group that it leads, itself first; itself alone if somebody else leads its group."""
    there = [process for process in map(born, _pids()) if process is not None and process != leader]
    return [leader, *(process for process in there if _group(process.pid) == leader.pid and process.pid != os.getpid())]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:  # it has ended
        return None


def _is_within(pid: int, meant: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), meant)
    except OSError:  # it has ended, or is another user's
        return False


def _is_marked(pid: int, folder: str) -> bool:
    try:
        arguments = _split(Path(f"/proc/{pid}/cmdline"))
        works = {"start", "--config"} <= set(arguments) or SUPERVISOR in arguments
        if works and _mentions(arguments, folder):
            return True
        variables = _split(Path(f"/proc/{pid}/environ"))
    except OSError:  # it has ended, or is another user's
        return False
    return _mentions([each.partition("=")[2] for each in variables if each.startswith("HASCHED_OUTPUT=")], folder)


def _mentions(texts: list[str], folder: str) -> bool:
    return any(f"{text}/".startswith(f"{folder}/") for text in texts)


def _split(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="replace").split("\0")


def _line_of(pid: int, table: dict[int, tuple[int, int]]) -> list[int]:
    """The process and its ancestors."""
    line: list[int] = []
    while pid and pid not in line:
        line.append(pid)
        pid = table.get(pid, (0, 0))[0]
    return line


def _parent_and_session(pid: int) -> tuple[int, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[3])


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
