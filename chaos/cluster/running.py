"""Signals to the daemons of a running cluster. Somebody else starts them again; we only wait for it."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from chaos.cluster.base import Fault
from chaos.cluster.found import Daemon, Found, Sought, find
from chaos.cluster.steps import faulted, in_thread
from chaos.errors import MachineLacks, Unsettled, held
from chaos.safety.audit import Act
from chaos.safety.identity import is_alive, is_stopped, send, wait_until_gone
from chaos.safety.ledger import Ledger
from chaos.safety.traces import group_of, processes_of
from chaos.safety.undo import Thaw
from chaos.stage import Skipped

KILL_PATIENCE_S = 10.0
START_PATIENCE_S = 30.0
POLL_S = 0.1
WATCH_S = 0.5


class RunningProcesses:
    """See `chaos.cluster.base.Processes`. Whoever isn't here can't be hit: Skipped says so."""

    def __init__(self, sought: Sought, found: Found) -> None:
        self.ledger: Ledger | None = None  # without one, nothing can be done
        self._sought = sought
        self._daemons = dict(found.daemons)
        self._found = found
        self._lives = dict.fromkeys(self._daemons, 0)
        self._lock = threading.Lock()  # the watch looks in a thread
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RunningProcesses:
        self._watch = asyncio.create_task(self._keep_watching(), name="daemons")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _keep_watching(self) -> None:
        """Restarts count even if nobody asks in between."""
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(WATCH_S)

    def _look(self) -> None:
        """Learn who took the place of a daemon that has ended."""
        with self._lock:
            if all(is_alive(daemon.process) for daemon in self._daemons.values()):
                return
            for name, daemon in find(self._sought).daemons.items():
                known = self._daemons.get(name)
                if known is not None and known.process != daemon.process and not is_alive(known.process):
                    self._daemons[name] = daemon
                    self._lives[name] += 1

    # --- what is seen ---

    def pid(self, name: str) -> int | None:
        """None too for one that isn't on this machine, or isn't ours."""
        daemon = self._daemons.get(name)
        if daemon is not None and not is_alive(daemon.process):
            self._look()
            daemon = self._daemons[name]
        return daemon.process.pid if daemon is not None and is_alive(daemon.process) else None

    def restarts(self, name: str) -> int | None:
        self.pid(name)
        return self._lives.get(name)

    def daemon(self, name: str) -> Daemon:
        """Raises Skipped if it can't be hit from here, or is down now."""
        if name not in self._daemons:
            raise Skipped(self._found.why_not(name))
        if self.pid(name) is None:
            raise Skipped(f"{name} is down")
        return self._daemons[name]

    def uids(self, names: Iterable[str]) -> list[int]:
        """Of the users that these daemons run as, where they are here."""
        return sorted({self._daemons[name].uid for name in names if name in self._daemons})

    # --- what is done ---

    async def kill(self, name: str) -> None:
        daemon = self.daemon(name)
        self._note(f"kill {name}, {daemon.process}")
        await in_thread(lambda: _signal(daemon, signal.SIGKILL, KILL_PATIENCE_S))

    async def kill_group(self, name: str) -> None:
        daemon = self.daemon(name)
        self._note(f"kill {name}, {daemon.process}, and its process group")

        def kill_all() -> None:
            _, *others = group_of(daemon.process)
            _signal(daemon, signal.SIGKILL, KILL_PATIENCE_S)
            for process in others:
                send(process, signal.SIGKILL)

        await in_thread(kill_all)

    async def terminate(self, name: str, patience_s: float = 30.0) -> int:
        """The status is always 0: it is told to nobody but the daemon's own parent."""
        daemon = self.daemon(name)
        self._note(f"end {name}, {daemon.process}, by SIGTERM")
        await in_thread(lambda: _signal(daemon, signal.SIGTERM, patience_s))
        return 0

    async def start(self, name: str) -> None:
        """Wait until its service manager has started it. Raises Unsettled if nobody did."""
        if name not in self._daemons:
            raise Skipped(self._found.why_not(name))
        await self._wait_until_back(name, START_PATIENCE_S)

    @asynccontextmanager
    async def down(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Killed; it is back when its service manager says so, which may be before the end."""
        began = time.monotonic()
        await self.kill(name)
        try:
            yield
        finally:
            await self._wait_until_back(name, max(0.0, began + seconds - time.monotonic()) + START_PATIENCE_S)

    def frozen(self, name: str, seconds: float) -> Fault:
        daemon = self.daemon(name)
        if is_stopped(daemon.process):  # our way back would let it go on
            raise Skipped(f"{name} was stopped by somebody else")
        what = f"freeze {name}, {daemon.process}, for {seconds:.1f} s"
        return faulted(
            self._ledger(), Thaw(daemon.process), what, seconds, lambda: _signal(daemon, signal.SIGSTOP, None)
        )

    async def reboot(self, agent: str) -> None:
        """The agent, its supervisor and all of its tasks."""
        daemon = self.daemon(agent)
        if daemon.kind != "agent" or not daemon.data_dir.startswith("/"):
            raise Skipped(f"{agent} is no agent that could lose its tasks")
        self._note(f"kill {agent}, {daemon.process}, with its supervisor and tasks in {daemon.data_dir}")

        def kill_all() -> None:
            _signal(daemon, signal.SIGSTOP, None)  # or it would start a supervisor again while we kill the tasks
            for process in processes_of(daemon.data_dir):
                send(process, signal.SIGKILL)
            _signal(daemon, signal.SIGKILL, KILL_PATIENCE_S)

        what = f"freeze {agent} while its tasks are killed"
        async with faulted(self._ledger(), Thaw(daemon.process), what, KILL_PATIENCE_S, kill_all):
            pass
        await self._wait_until_back(agent, START_PATIENCE_S)

    def orphaned(self, agent: str, seconds: float) -> Fault:
        raise MachineLacks(
            f"{agent} can't be kept down for {seconds:.0f} s: its service manager starts it again",
            "a cluster of the harness's own can (leave out --attach)",
        )

    async def _wait_until_back(self, name: str, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while await asyncio.to_thread(self.pid, name) is None:
            if time.monotonic() > deadline:
                raise Unsettled(
                    f"{name} was killed, and nobody started it again within {patience_s:.0f} s",
                    "start it yourself; under a service manager (systemd, `hasched dev`) it would be running by now",
                )
            await asyncio.sleep(POLL_S)

    def _ledger(self) -> Ledger:
        if self.ledger is None:
            raise MachineLacks("this cluster was only looked at: nothing can be done to it", "attach to it first")
        return self.ledger

    def _note(self, what: str) -> None:
        """Nothing needs undoing, but it is noted before it is done. Raises MachineLacks if it can't be."""
        self._ledger().note(Act.STRIKE, what)


def _signal(daemon: Daemon, number: signal.Signals, patience_s: float | None) -> None:
    """Raises Skipped if it has ended by itself, Unsettled if it doesn't end in time."""
    if not send(daemon.process, number):
        raise Skipped(f"{daemon.name} has just ended by itself")
    if patience_s is not None and not wait_until_gone(daemon.process, patience_s):
        raise Unsettled(
            f"{daemon.name} got {number.name} and did not end within {patience_s:.0f} s", held(daemon.process.pid)
        )
