"""Schedules every second in 50 zones, in simulated time: every slot is fired once, whoever leads and however the clock jumps.

The state machine and the duty that plans are the product's; what is simulated is who leads, what each leader knew last, and when
anybody does. Slots are matched to runs as they are fired: the next of each schedule must be the second after the last.
"""

from __future__ import annotations

import argparse
import time
from random import Random

from hasched.manager.schedules import LEAD_MS, least_planned, plan_slots
from hasched.model.schedule import CatchUp, ScheduleSpec, SlotOutcome
from hasched.model.spec import JobSpec
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import (
    BATCH_VERSION,
    Batch,
    CancelJob,
    Command,
    DeleteJob,
    PlanSlots,
    PutSchedule,
    StepClock,
)
from hasched.statemachine.events import JobSubmitted, SlotFired, SlotsSkipped
from hasched.statemachine.invariants import check
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.schedules import Schedule, parent_of
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import State
from hasched.timetable.zones import DAY_S
from proofs.report import Proof, say
from tests.timetable.table import changing_zones

PROOF = "schedules"
START_MS = 1_774_569_600_000  # 2026-03-27: summer time begins in Europe two days later
SAID_EVERY_S = 30.0
RARE = 0.001
FAULTS = {"another leader": 0.01, "nobody leads for a while": 0.004, "a full stop": 0.0004, "the clock jumps": 0.0004}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zones", type=int, default=50)
    parser.add_argument("--days", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--at-most", type=float, default=1e9, metavar="SECONDS", help="give up after so long, and say how far"
    )


def prove(options: argparse.Namespace) -> Proof:
    run = Run(options.seed, options.zones)
    began, said, end_ms = time.monotonic(), time.monotonic(), START_MS + round(options.days * DAY_S * 1000)
    while run.now_ms < end_ms and time.monotonic() - began < options.at_most:
        run.go_on()
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            say(
                f"{(run.now_ms - START_MS) / 1000 / DAY_S:.2f} days, {run.fired:,} slots fired, {sum(run.faults.values())} faults"
            )
    run.settle()
    proof = Proof("Schedules every second", ("fault", "times"))
    for name, times in run.faults.items():
        proof.add(name, times)
    missed = sum((schedule.planned_ms_past(run.now_ms)) for schedule in run.books.values())
    for sentence in run.wrong[:20]:
        proof.violate(sentence)
    if missed:
        proof.violate(f"{missed} slots were missed")
    proof.facts = {
        "schedules": options.zones,
        "simulated days": round((run.now_ms - START_MS) / 1000 / DAY_S, 2),
        "slots fired": f"{run.fired:,}",
        "of them later than the grace": f"{run.late:,}",
        "missed": missed,
        "extra": run.extra,
        "managers filled from a snapshot": run.filled,
        "seconds": round(time.monotonic() - began),
    }
    return proof


class Book:
    """What is expected of one schedule."""

    def __init__(self, first_ms: int) -> None:
        self.next_ms = first_ms

    def planned_ms_past(self, now_ms: int) -> int:
        """How many slots up to a time have not been fired."""
        return max(0, (now_ms - self.next_ms) // 1000 + 1)


class Run:
    def __init__(self, seed: int, zones: int) -> None:
        self.dice = Random(seed)
        self.state = State()
        self.now_ms = START_MS
        self.faults = dict.fromkeys(FAULTS, 0)
        self.fired = self.late = self.extra = self.filled = 0
        self.wrong: list[str] = []
        self.books: dict[str, Book] = {}
        self.leader = 0
        self._known: list[dict[str, Schedule]] = [{}, {}, {}]
        self._made: dict[str, int] = {}
        first = ("Europe/Berlin", "Australia/Lord_Howe", "Asia/Beirut", "America/Santiago", "UTC", "Asia/Kathmandu")
        names = list(dict.fromkeys([*first, *changing_zones(2026, 2026)]))
        names = (names * (zones // len(names) + 1))[:zones]
        job = JobSpec(name="tick", command=("true",))
        for number, zone in enumerate(names):
            spec = ScheduleSpec(
                cron="* * * * * *", timezone=zone, catch_up=CatchUp.ALL, catch_up_limit=1000, grace_ms=30_000, job=job
            )
            name = f"z{number}"
            self.books[name] = Book(START_MS + 1000)
            self._do([PutSchedule(name=name, spec=spec, actor="ada")])

    def go_on(self) -> None:
        """A leader does what it does in some time, or something happens to it."""
        dice = self.dice
        for name, chance in FAULTS.items():
            if dice.random() < chance and (chance > RARE or self._caught_up()):
                self.faults[name] += 1
                self._strike(name)
        self._plan()
        due_ms = next_deadline(self.state)
        assert due_ms is not None, "a second is always to come"
        self.now_ms = max(self.now_ms, due_ms) + dice.choice((0, 1, 20))
        self._step()

    def _caught_up(self) -> bool:
        """Whether nothing is late. Outages in a row would leave more slots than the 1000 that `catch_up: all` keeps at most."""
        late_ms = self.state.now_ms - 5000
        schedules = self.state.schedules.values()
        return all(
            each.planned_ms > late_ms and (not each.pending or each.pending[0].fire_ms > late_ms) for each in schedules
        )

    def _strike(self, name: str) -> None:
        dice = self.dice
        match name:
            case "another leader":  # which has applied everything, or believes in what it saw last
                self.leader = dice.randrange(3)
            case "nobody leads for a while":
                self.now_ms += dice.randrange(500, 20_000)
                self.leader = dice.randrange(3)
            case "a full stop":
                self.now_ms += dice.randrange(30_000, 600_000)
                captured = capture(self.state)
                self.state = restore(iter(captured.next_chunk, None))
                self.filled += 1
            case "the clock jumps":
                self.now_ms += dice.choice((-3_600_000, -5000, 5000, 300_000))

    def _plan(self) -> None:
        state, known = self.state, self._known[self.leader]
        if not known or self.dice.random() < 0.9:
            self._known[self.leader] = known = dict(state.schedules)
        clock_ms = max(self.now_ms, state.now_ms)
        plans: list[Command] = []
        for name in least_planned(state, clock_ms + LEAD_MS):
            plan: PlanSlots | None = plan_slots(known[name], clock_ms)
            if plan is not None:
                plans.append(plan)
        if plans:
            self._do(plans)
            if self.dice.random() < 0.05:
                self._do(plans)  # another leader says the same

    def _step(self) -> None:
        made = self._do([StepClock()])
        if made:
            self._do([CancelJob(job_id=job_id, actor="ada") for job_id in made])
            self._do([DeleteJob(job_id=job_id, actor="ada") for job_id in made])

    def settle(self) -> None:
        """One leads, and nothing is due any more."""
        self.now_ms = max(self.now_ms, self.state.now_ms)
        for _ in range(100_000):
            self._plan()
            due_ms = next_deadline(self.state)
            if (
                all(each.planned_ms > self.now_ms for each in self.state.schedules.values())
                and (due_ms or 0) > self.now_ms
            ):
                break
            self._step()
        self.wrong += check(self.state)

    def _do(self, commands: list[Command]) -> list[int]:
        """The jobs that came of them."""
        self.now_ms = max(self.now_ms, 0)
        applied = apply(self.state, self.state.index + 1, Batch(BATCH_VERSION, self.now_ms, commands))
        self.wrong += applied.faults
        made: dict[int, str] = {}
        for event in applied.events:
            match event:
                case JobSubmitted():
                    made[event.job_id] = event.parent
                case SlotFired():
                    self._note(event, made)
                case SlotsSkipped():
                    self.wrong.append(f"{event.schedule}: {event.count} slots are {event.outcome.name}")
                case _:
                    pass
        return list(made)

    def _note(self, event: SlotFired, made: dict[int, str]) -> None:
        book = self.books[event.schedule]
        self.fired += 1
        self.late += event.outcome is SlotOutcome.CAUGHT_UP
        if made.get(event.job_id) != parent_of(event.schedule, event.slot_ms):
            self.wrong.append(f"{event.schedule}: the slot {event.slot_ms} has no job of its own")
        if event.slot_ms > self.state.now_ms:
            self.wrong.append(f"{event.schedule}: the slot {event.slot_ms} was fired before its time")
        if event.slot_ms < book.next_ms:
            self.extra += 1
            self.wrong.append(f"{event.schedule}: the slot {event.slot_ms} was fired again")
        elif event.slot_ms > book.next_ms:
            self.wrong.append(
                f"{event.schedule}: {(event.slot_ms - book.next_ms) // 1000} slots before {event.slot_ms} are missing"
            )
        book.next_ms = max(book.next_ms, event.slot_ms + 1000)
