"""A whole cluster in one thread, in virtual time: everything that happens is an event on one heap, drawn from one seed.

The hosts run the product itself: managers from their journal to their duties, agents with their core, driver and link.
Only what is around them is simulated: network, disk, clocks, and the processes of tasks. The same seed gives the same
trace, to the last event, in any process: a failing seed is a debugger's dream.
"""

from __future__ import annotations

import gc
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from random import Random
from typing import Any

import structlog
from pysyncobj import syncobj

from tests.simulation.agent import SimulatedAgent
from tests.simulation.clocks import READING_S, HostClock
from tests.simulation.loop import HostLoop
from tests.simulation.manager import SimulatedManager
from tests.simulation.network import Network, Weather
from tests.simulation.settings import Settings
from tests.simulation.tasks import Run, supervised_in

TRACE_LINES = 200_000  # the last ones are kept, when a trace is wanted
HASHED_TOGETHER = 500


class Violated(AssertionError):
    """Something that must never happen has happened in a simulation."""


class World:
    """`with World(seed, settings) as world: world.run(60)`. One world at a time may be entered in a process."""

    def __init__(self, seed: int, settings: Settings | None = None, *, keep_trace: bool = False) -> None:
        self.seed = seed
        self.settings = settings or Settings()
        self.now = 0.0
        self.running: HostLoop | None = None  # whose code runs now
        self.node: SimulatedAgent | None = None  # whose supervisor runs now
        self.logged: Counter[str] = Counter()  # lines that the product has logged, by event
        self.flips = 0  # of bits in managers' memories
        self.runs: list[Run] = []  # every attempt that was started anywhere
        self.complaints: list[str] = []
        self.trace: list[str] | None = [] if keep_trace else None
        self._hash = blake2b(digest_size=16)
        self._unhashed: list[str] = []
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0
        self._graveyard: list[HostLoop] = []
        self._clients: list[HostLoop] = []
        self.random = self.stream("world")
        self.network = Network(self, self.settings.weather or Weather())
        self.on_start: list[Callable[[SimulatedManager], None]] = []  # when its disk is read
        self.on_applied: list[Callable[[SimulatedManager, Any], None]] = []
        names = [f"m{number}" for number in range(1, self.settings.managers + 1)]
        spares = [f"m{len(names) + number}" for number in range(1, self.settings.spares + 1)]
        self.managers = {name: SimulatedManager(self, name, names) for name in (*names, *spares)}
        self.agents = {f"a{n}": SimulatedAgent(self, f"a{n}") for n in range(1, self.settings.agents + 1)}

    # --- determinism ---

    def stream(self, name: str) -> Random:
        """A source of randomness of its own, so that one part's draws don't shift another's."""
        return Random(f"{self.seed} {name}")

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def note(self, kind: str, *fields: object) -> None:
        """A line of the trace."""
        line = f"{self.now:.6f} {kind} {fields!r}\n"
        self._unhashed.append(line)
        if len(self._unhashed) == HASHED_TOGETHER:
            self._hash_lines()
        if self.trace is not None:
            self.trace.append(line)
            if len(self.trace) > TRACE_LINES:
                del self.trace[: TRACE_LINES // 2]

    def _hash_lines(self) -> None:
        self._hash.update("".join(self._unhashed).encode())
        self._unhashed.clear()

    @property
    def fingerprint(self) -> str:
        """Of everything that was noted so far."""
        self._hash_lines()
        return self._hash.hexdigest()

    # --- time ---

    def at(self, when: float, action: Callable[..., object], *args: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, action, args))

    def after(self, delay: float, action: Callable[..., object], *args: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (self.now + delay, self._number, action, args))

    def skip(self, seconds: float) -> bool:
        """Let so much time pass at once, if nothing is due before."""
        until = self.now + seconds
        if self._heap and self._heap[0][0] <= until:
            return False
        self.now = until
        return True

    def run(self, seconds: float, until: Callable[[], object] | None = None) -> bool:
        """Let time pass, at most so much, or until a condition holds. Returns whether it did."""
        end = self.now + seconds
        heap = self._heap
        if until is not None and until():
            return True
        while heap and heap[0][0] <= end:
            when, _, action, args = heapq.heappop(heap)
            if when > self.now:
                self.now = when
            action(*args)
            if self.complaints:
                raise Violated(f"seed {self.seed}, at {self.now:.3f} s: {self.complaints[0]}")
            if until is not None and until():
                return True
        self.now = max(self.now, end)
        return False

    # --- complaints ---

    def complain(self, host: str, what: str, error: BaseException | None = None) -> None:
        """Something is wrong inside the product, or the promise is broken: the run ends with it."""
        cause = "" if error is None else f": {error!r}"
        complaint = f"{host}: {what}{cause}"
        self.note("complaint", complaint)
        if error is not None:
            complaint += "\n" + "".join(_traceback_of(error))
        self.complaints.append(complaint)

    # --- hosts ---

    def is_on(self, name: str) -> bool:
        host = self.managers.get(name) or self.agents.get(name)
        return host is None or host.powered

    def start(self) -> None:
        """Every host, in one order."""
        for host in (*self.managers.values(), *self.agents.values()):
            host.start()

    def client(self, name: str) -> HostLoop:
        """A process of somebody outside, for whom no fault is meant: it asks managers with `manager.ask`."""
        loop = HostLoop(self, name, HostClock(self, self.stream(f"client {name}")), lambda: 0.0)
        self._clients.append(loop)
        return loop

    def inter(self, loop: HostLoop) -> None:
        """Keep a process that has died until the world is closed."""
        self._graveyard.append(loop)

    def leader(self) -> SimulatedManager | None:
        """The running manager that leads in the newest term, and has caught up with it."""
        leading = [each for each in self.managers.values() if each.leads]
        return max(leading, key=lambda manager: manager.replica.term, default=None)

    def heal(self) -> None:
        """Every fault that is under way ends, delays beyond an election timeout too; every host that is down starts."""
        self.network.heal_all()
        self.network.weather.slow.clear()
        self.network.break_stuck()
        self.network.weather = replace(self.network.weather, spikes=0.0)
        for host in (*self.managers.values(), *self.agents.values()):
            host.heal()

    def voters(self) -> list[SimulatedManager]:
        """By the leader's word, whoever has a vote; every founder while nobody leads."""
        leader = self.leader()
        names = [each.name for each in self.managers.values() if not each.joins]
        return [self.managers[name] for name in (names if leader is None else leader.core.engine.membership.voters)]

    def agree(self) -> bool:
        """One leads, and all who have a vote have applied the same."""
        voters = self.voters()
        if self.leader() is None or not all(manager.running for manager in voters):
            return False
        engines = [manager.core.engine for manager in voters]
        return len({(e.term, e.last_index, e.commit_index, e.applied_index) for e in engines}) == 1

    # --- the process around it ---

    def __enter__(self) -> World:
        gc.disable()  # a run is short, and most of what it makes lasts to its end
        self._patches = _patched(self)
        self._patches.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self.close()
        finally:
            self._patches.__exit__(None, None, None)
            gc.enable()

    def close(self) -> None:
        """End every process, in one order; nothing that they still do is noted."""
        self.note = lambda *_: None  # type: ignore[method-assign]
        self.complain = lambda *_: None  # type: ignore[method-assign]
        for host in (*self.managers.values(), *self.agents.values()):
            host.kill()
        for loop in self._clients:
            loop.die()
        for loop in (*self._clients, *self._graveyard):
            loop.bury()
        self._heap.clear()

    def monotonic(self) -> float:
        """What the library reads: the clock of the host whose code runs."""
        if self.running is None:
            return self.now
        clock = self.running.clock
        self.now = now = self.now + READING_S
        return clock.base + (now - clock.since) * clock.rate  # as `HostClock.monotonic`, which this saves a call


class _Log:
    """Takes the product's log lines: into the trace, and, where they tell of a defect, as complaints."""

    world: World | None = None

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def bind(self, **_: Any) -> _Log:
        return self

    def _note(self, level: str, event: str, fields: dict[str, Any]) -> None:
        world = self.world
        if world is not None and world.running is not None and not world.running.dead:
            world.logged[event] += 1
            fields.pop("exc_info", None)
            world.note(level, world.running.name, event, fields)

    def debug(self, event: str, **fields: Any) -> None:
        pass

    def info(self, event: str, **fields: Any) -> None:
        self._note("info", event, fields)

    warning = error = critical = info

    def exception(self, event: str, **fields: Any) -> None:
        import sys

        self._note("exception", event, fields)
        if self.world is not None and self.world.running is not None:
            self.world.complain(self.world.running.name, f"{event} {fields}", sys.exc_info()[1])


@contextmanager
def _patched(world: World) -> Iterator[None]:
    """What the product reads from its process, it reads from the world meanwhile."""
    configuration = structlog.get_config()
    monotonic = syncobj.monotonicTime
    _Log.world = world
    structlog.configure(
        processors=[], wrapper_class=_Log, logger_factory=lambda *_: None, cache_logger_on_first_use=False
    )
    syncobj.monotonicTime = world.monotonic
    try:
        with supervised_in(world):
            yield
    finally:
        syncobj.monotonicTime = monotonic
        structlog.configure(**configuration)
        _Log.world = None


def _traceback_of(error: BaseException) -> list[str]:
    import traceback

    return traceback.format_exception(error)
