"""What a run notes while it happens. Times are seconds since the run began, on the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from chaos.checkers.history import History
from hasched.model.views import EventView


class Struck(msgspec.Struct, kw_only=True):
    """One strike of a nemesis. `outcome`: under way, done, skipped (nothing was harmed), failed (the harness's own fault)."""

    number: int
    nemesis: str
    family: str
    at_s: float
    until_s: float = 0.0
    targets: list[str] = []
    endangered: list[str] = []  # managers among them whose disks it harms, so that they may begin anew
    outcome: str = "under way"
    notes: list[str] = []


SILENT = "silent"


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """How a manager described itself; `role` is SILENT where it didn't. `life` counts its restarts; None: nobody does, since
    it is on another machine."""

    at_s: float
    manager: str
    role: str
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    life: int | None = 0


class Phase(msgspec.Struct, kw_only=True):
    """set-up, faults, healing, verdict."""

    name: str
    from_s: float
    until_s: float = 0.0


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A line that an attempt left outside the cluster: it began or ended, as its machine saw it."""

    at_s: float
    job_id: int
    index: int
    attempt: int
    node_id: str
    what: str  # began, alive, ended


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge must know of a job that was submitted. `amounts` are of each of its tasks, by name of the resource."""

    amounts: dict[str, int]
    stops: bool  # on_disconnect: stop
    tells: bool = False  # its attempts leave effects


class Record:
    """Everything that the judge and the report know of a run."""

    def __init__(self) -> None:
        self.began_ms = time.time_ns() // 1_000_000
        self._zero = time.monotonic()
        self.history = History()
        self.strikes: list[Struck] = []
        self.sights: list[Sight] = []
        self.phases: list[Phase] = []
        self.asked: dict[str, Asked] = {}  # by submission id, whether it was accepted or not
        self.jobs: dict[str, int] = {}  # ids of jobs that a client was told of, by submission id
        self.anchor = 0  # the log index that events are recorded from
        self.offers: dict[str, dict[str, int]] = {}  # what each node had then, by name of the resource
        self.events: list[EventView] = []  # in the order of the log, each once
        self.event_gaps: list[str] = []  # sentences: between which events some may be missing, and why
        self.whole_events: int | None = None  # so many of the first are without a gap; None: all
        self.contradictions: list[str] = []  # managers that tell of one event in different ways
        self.effects: list[Effect] = []
        self.notes: list[str] = []

    def now(self) -> float:
        return time.monotonic() - self._zero

    def note(self, text: str) -> None:
        self.notes.append(f"{self.now():.1f} s: {text}")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        phase = Phase(name=name, from_s=self.now())
        self.phases.append(phase)
        try:
            yield
        finally:
            phase.until_s = self.now()
