"""The daemons of a cluster that the harness made: real processes, started, killed, frozen and started again one by one.

A daemon is in the ledger from its birth; between its birth and the ledger's line it is known by the cluster's folder, which
is in its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec

from chaos.cluster.steps import faulted, in_thread
from chaos.errors import Unsettled, held
from chaos.safety.audit import Act
from chaos.safety.identity import Born, born, is_alive, is_stopped, send, wait_until_gone
from chaos.safety.ledger import Armed, Ledger
from chaos.safety.traces import group_of, processes_of
from chaos.safety.undo import Kill, Thaw

POLL_S = 0.01
KILL_PATIENCE_S = 30.0
STOP_PATIENCE_S = 10.0
LOG_LINES = 40
LOG_BYTES = 64 * 1024  # more than so many lines have


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How one daemon is started. `environment` and `residents` are asked at each start and each reboot: variables beside our
    own, and the processes on its host, where it has one of its own."""

    command: list[str]
    data_dir: Path
    environment: Callable[[], Mapping[str, str]] = dict
    residents: Callable[[], list[Born]] = list


class _Life(msgspec.Struct, frozen=True):
    process: subprocess.Popen[bytes]
    born: Born | None  # None: it had ended before we looked
    armed: Armed | None


class Daemons:
    """Logs are `folder`/NAME.log, of all lives of a daemon one after the other. Implements `Processes`."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._folder = folder
        self._launches: dict[str, Launch] = {}
        self._lives: dict[str, _Life] = {}
        self._starts: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def add(self, name: str, launch: Launch) -> None:
        self._launches[name] = launch
        self._locks[name] = asyncio.Lock()

    def forget(self, name: str) -> None:
        """It is down, and won't be started again."""
        assert self.pid(name) is None, f"{name} is running"
        del self._launches[name], self._locks[name]

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    # --- what is there ---

    def pid(self, name: str) -> int | None:
        life = self._lives.get(name)
        return life.process.pid if life is not None and life.process.poll() is None else None

    def restarts(self, name: str) -> int:
        return max(0, self._starts.get(name, 0) - 1)

    def ended(self, name: str) -> int | None:
        """The exit status of its latest life, negative after a signal; None while it runs, or before its first."""
        life = self._lives.get(name)
        return None if life is None else life.process.poll()

    def dead(self) -> dict[str, int]:
        """Those that ran and do not any more, and their exit statuses."""
        ended = {name: self.ended(name) for name in self._launches}
        return {name: status for name, status in ended.items() if status is not None}

    def last_lines(self, name: str, count: int = LOG_LINES) -> str:
        try:
            with self.log(name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-count:])

    # --- life and death ---

    async def start(self, name: str) -> None:
        async with self._locks[name]:
            if self.pid(name) is None:
                await in_thread(lambda: self._spawn(name))

    def _spawn(self, name: str) -> None:
        """The process, and its way back."""
        launch = self._launches[name]
        self._strike_off(name)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HASCHED_")}
        environment |= {"HASCHED_LOG_FORMAT": "text", **launch.environment()}
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._lives[name] = _Life(process, None, None)
        self._starts[name] = self._starts.get(name, 0) + 1
        begun = born(process.pid)
        if begun is not None:
            armed = self._ledger.arm(Kill(begun), f"{name} runs as process {process.pid}")
            self._lives[name] = _Life(process, begun, armed)

    async def kill(self, name: str) -> None:
        async with self._locks[name]:
            await self._note(f"SIGKILL to {name}")
            self._send(name, signal.SIGKILL)
            await self._wait(name, KILL_PATIENCE_S, "SIGKILL")

    async def kill_group(self, name: str) -> None:
        async with self._locks[name]:
            await self._note(f"SIGKILL to {name} and its process group")
            life = self._lives.get(name)
            leader = life.born if life is not None else None
            if leader is not None:
                for process in await in_thread(lambda: group_of(leader)):
                    send(process, signal.SIGKILL)
            await self._wait(name, KILL_PATIENCE_S, "SIGKILL")

    async def terminate(self, name: str, patience_s: float = 30.0) -> int:
        async with self._locks[name]:
            await self._note(f"SIGTERM to {name}")
            self._send(name, signal.SIGTERM)
            return await self._wait(name, patience_s, "SIGTERM")

    async def _note(self, what: str) -> None:
        await in_thread(lambda: self._ledger.audit.write(Act.STRIKE, what))

    def _send(self, name: str, number: signal.Signals) -> None:
        life = self._lives.get(name)
        if life is not None and life.born is not None and life.process.poll() is None:
            send(life.born, number)

    async def _wait(self, name: str, patience_s: float, why: str) -> int:
        life = self._lives.get(name)
        if life is None:
            return 0
        try:
            async with asyncio.timeout(patience_s):
                while (status := life.process.poll()) is None:  # noqa: ASYNC110 - a pipe or a signal would tell no more
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            last = self.last_lines(name, 1)
            raise Unsettled(f"{name} still runs {patience_s:.0f} s after {why}", f"its last line: {last}") from None
        await in_thread(lambda: self._strike_off(name))
        return status

    def _strike_off(self, name: str) -> None:
        life = self._lives.get(name)
        if life is not None and life.armed is not None and life.process.poll() is not None:
            self._lives[name] = _Life(life.process, life.born, None)
            life.armed.strike_off()

    # --- faults ---

    @asynccontextmanager
    async def down(self, name: str, seconds: float) -> AsyncIterator[None]:
        try:
            await self.kill(name)
            yield
        finally:
            await self.start(name)

    @asynccontextmanager
    async def frozen(self, name: str, seconds: float) -> AsyncIterator[None]:
        life = self._lives.get(name)
        if life is None or life.born is None or self.pid(name) is None:
            raise Unsettled(f"{name} is down and can't be frozen", "start it first")
        process = life.born
        async with faulted(self._ledger, Thaw(process), f"SIGSTOP to {name}", seconds, lambda: _stop(process)):
            yield

    async def reboot(self, agent: str) -> None:
        async with self._locks[agent]:
            await self._note(f"{agent} and everything on its node is killed")
            self._send(agent, signal.SIGKILL)  # first, or it would start another supervisor
            await self._wait(agent, KILL_PATIENCE_S, "SIGKILL")
            await in_thread(lambda: self._empty(agent))
        await self.start(agent)

    def _empty(self, agent: str) -> None:
        """Nothing of this node runs any more. Raises Unsettled."""
        launch = self._launches[agent]
        for _ in range(100):
            there = [*launch.residents(), *processes_of(str(launch.data_dir))]
            if not there:
                return
            for process in there:  # all at once, then wait: nobody sees the others die and reports it
                send(process, signal.SIGKILL)
            for process in there:
                wait_until_gone(process, KILL_PATIENCE_S)
        raise Unsettled(f"processes of {agent} survive SIGKILL", "look at them: `ps -ef`")

    def orphaned(self, agent: str, seconds: float) -> AbstractAsyncContextManager[None]:
        """The supervisor has a session of its own, so it takes no more than what `down` does."""
        return self.down(agent, seconds)

    # --- the end ---

    def kill_all(self) -> None:
        """Whatever state they are in; returns once they are gone."""
        for name in self._lives:
            self._send(name, signal.SIGKILL)
        for name, life in self._lives.items():
            with contextlib.suppress(subprocess.TimeoutExpired):  # held by its disk; it stays in the ledger
                life.process.wait(KILL_PATIENCE_S)
            self._strike_off(name)


def _stop(process: Born) -> None:
    """Returns once it stands still (or is gone): a signal that comes on the heels of SIGSTOP would be handled before it."""
    deadline = time.monotonic() + STOP_PATIENCE_S
    send(process, signal.SIGSTOP)
    while is_alive(process) and not is_stopped(process):
        if time.monotonic() > deadline:
            raise Unsettled(f"{process} got SIGSTOP and still runs after {STOP_PATIENCE_S:.0f} s", held(process.pid))
        time.sleep(POLL_S)
