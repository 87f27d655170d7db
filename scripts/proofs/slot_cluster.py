"""Three managers that lead in turn, each with a clock of its own, over one log: what becomes of schedules meanwhile.

The state machine, the leader's clock and the duty that plans are the product's; what is simulated is who leads, what each
leader knew last, and when anybody does.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from hasched.manager import schedules as duty
from hasched.model.schedule import ScheduleSpec, SlotOutcome
from hasched.model.states import TaskState
from hasched.raft.clock import LeaderClock
from hasched.statemachine.apply import apply, evolve
from hasched.statemachine.commands import (
    BATCH_VERSION,
    Batch,
    Command,
    PlanSlots,
    PutSchedule,
    StepClock,
)
from hasched.statemachine.events import JobCancelRequested, JobDeleted, JobEnded, JobSubmitted, SlotFired, SlotsSkipped
from hasched.statemachine.invariants import check
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.rules.slots import MAX_FIRED_PER_STEP
from hasched.statemachine.schedules import Schedule, parent_of
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import State
from proofs.slot_book import SECOND_MS, Book

MANAGERS = 3
MAX_DELAYED = 200  # plans of a leader that is cut off which may arrive later
FAULTS = {  # how likely each is in a turn, which is about a second
    "another leader": 0.01,
    "nobody leads for a while": 0.004,
    "the leader is cut off and goes on planning": 0.002,
    "a full stop": 0.0004,
    "a clock jumps": 0.0004,
}
LONG = ("a full stop", "a clock jumps")  # these make many slots late


class _CutOff(NamedTuple):
    """A manager that goes on as the leader that it was, on the state that it had."""

    manager: int
    until_ms: int
    schedules: dict[str, Schedule]
    plans: list[Command]


class SlotCluster:
    def __init__(self, seed: int, start_ms: int, specs: dict[str, ScheduleSpec]) -> None:
        self.state = State()
        self.faults = dict.fromkeys(FAULTS, 0)
        self.wrong: list[str] = []
        self.filled = self.outdated = self.lost = 0
        self.books: dict[str, Book] = {}
        self._dice = Random(seed)
        self._real_ms = start_ms
        self._ahead_ms = [0] * MANAGERS
        self._clocks = [self._clock_of(manager) for manager in range(MANAGERS)]
        self._leader = 0
        self._known: list[dict[str, Schedule]] = [{} for _ in range(MANAGERS)]
        self._cut_off: _CutOff | None = None
        for name, spec in specs.items():
            self._do([PutSchedule(name=name, spec=spec, actor="ada")])
            self.books[name] = Book(spec, self.state.now_ms // SECOND_MS * SECOND_MS + SECOND_MS)

    def go_on(self) -> None:
        """A leader does what it does in a second or so, or something happens to it."""
        for name, chance in FAULTS.items():
            if self._dice.random() < chance and (name not in LONG or self._caught_up()):
                self._strike(name)
        if self._cut_off is not None:
            self._go_on_cut_off(self._cut_off)
        knows_all = self._plan()
        due_ms = next_deadline(self.state)
        assert due_ms is not None, "a second is always to come"
        self._real_ms += max(due_ms - self._now_ms(), 0) + self._dice.choice((0, 1, 20))
        if self._step() < MAX_FIRED_PER_STEP and knows_all:
            self._check_nothing_is_held()

    def settle(self) -> None:
        """Nothing happens any more, until nothing is due."""
        self._cut_off = None
        for _ in range(100_000):
            self._known = [{} for _ in range(MANAGERS)]
            self._plan()
            if not self._step() and self._nothing_due():
                break
        self.wrong += check(self.state)

    # --- time ---

    def _clock_of(self, manager: int) -> LeaderClock:
        return LeaderClock(lambda: self._real_ms + self._ahead_ms[manager], lambda: self._real_ms / 1000)

    def _now_ms(self) -> int:
        """As the leader has it."""
        return self._clocks[self._leader].read(self.state.now_ms)

    # --- what happens to managers ---

    def _caught_up(self) -> bool:
        """Whether nothing is late. Outages in a row would leave more slots than `catch_up: all` can keep."""
        return all(book.next_ms > self._now_ms() - 5000 for book in self.books.values())

    def _strike(self, name: str) -> None:
        dice, manager = self._dice, self._dice.randrange(MANAGERS)
        match name:
            case "another leader":  # which has applied everything, or believes in what it saw last
                self._lead(manager)
            case "nobody leads for a while":
                self._real_ms += dice.randrange(500, 20_000)
                self._lead(manager)
            case "the leader is cut off and goes on planning":
                if self._cut_off is not None:
                    return
                until_ms = self._real_ms + dice.randrange(2000, 300_000)
                self._cut_off = _CutOff(self._leader, until_ms, dict(self.state.schedules), [])
                self._real_ms += dice.randrange(500, 5000)  # until the others have noticed
                self._lead((self._leader + 1 + manager % 2) % MANAGERS)
            case "a full stop":
                self._real_ms += dice.randrange(30_000, 600_000)
                captured = capture(self.state)
                self.state = restore(iter(captured.next_chunk, None))
                self._known = [{} for _ in range(MANAGERS)]
                self._cut_off = None  # nor does that one run
                self.filled += 1
            case "a clock jumps":
                struck = self._leader if dice.random() < 0.7 else manager
                shown_ms = self._clocks[struck].read(self.state.now_ms)
                self._ahead_ms[struck] = shown_ms - self._real_ms + dice.choice((-3_600_000, -5000, 5000, 300_000))
        self.faults[name] += 1

    def _lead(self, manager: int) -> None:
        """A manager is elected, if it can be."""
        if self._cut_off is None or self._cut_off.manager != manager:
            self._leader = manager

    def _go_on_cut_off(self, cut_off: _CutOff) -> None:
        """Until it is heard again it plans, to no effect. Of its plans some are lost with its log; others were on their way, and
        come to the leader of then."""
        if self._real_ms < cut_off.until_ms:
            clock_ms = self._clocks[cut_off.manager].read(0)
            for schedule in cut_off.schedules.values():
                if schedule.planned_ms < clock_ms + duty.LEAD_MS and len(cut_off.plans) < MAX_DELAYED:
                    plan = duty.plan_slots(schedule, clock_ms)
                    cut_off.plans.extend([plan] if plan is not None else [])
            return
        self._cut_off = None
        arrived = [plan for plan in cut_off.plans if self._dice.random() < 0.5]
        self.lost += len(cut_off.plans) - len(arrived)
        if arrived:
            self._do(arrived)

    # --- what a leader does ---

    def _plan(self) -> bool:
        """Whether the leader knew what was planned already."""
        state, known = self.state, self._known[self._leader]
        knows_all = not known or self._dice.random() < 0.9
        if knows_all:
            self._known[self._leader] = known = state.schedules.copy()
        clock_ms = self._now_ms()
        plans: list[Command] = []
        for name in duty.least_planned(state, clock_ms + duty.LEAD_MS):
            plan: PlanSlots | None = duty.plan_slots(known[name], clock_ms)
            if plan is not None:
                plans.append(plan)
        if plans:
            self._do(plans)
            if self._dice.random() < 0.05:
                self._do(plans)  # another leader says the same
        return knows_all

    def _step(self) -> int:
        """How many slots were fired."""
        made = self._do([StepClock()])
        for job_id in made:  # as if somebody cancelled and deleted it: what becomes of jobs is not asked here
            evolve(self.state, JobCancelRequested(job_id, "ada", "", (), 1, ()))
            evolve(self.state, JobEnded(job_id, TaskState.CANCELLED))
            evolve(self.state, JobDeleted(job_id, "ada"))
        return len(made)

    def _do(self, commands: list[Command]) -> list[int]:
        """The jobs that came of them."""
        applied = apply(self.state, self.state.index + 1, Batch(BATCH_VERSION, self._now_ms(), commands))
        self.wrong += applied.faults
        self.outdated += sum(isinstance(each, Rejected) for each in applied.outcomes)
        made: dict[int, str] = {}
        fired = 0
        for event in applied.events:
            match event:
                case JobSubmitted():
                    made[event.job_id] = event.parent
                case SlotFired():
                    fired += 1
                    if made.get(event.job_id) != parent_of(event.schedule, event.slot_ms):
                        self.wrong.append(f"{event.schedule}: the slot {event.slot_ms} has no job of its own")
                    self._enter(event.schedule, event.slot_ms, event.outcome)
                case SlotsSkipped():
                    self._enter(event.schedule, event.first_ms, event.outcome, event.count, event.step_ms)
                case _:
                    pass
        if fired != len(made):
            self.wrong.append(f"entry {applied.index} made {len(made)} jobs of {fired} slots")
        return list(made)

    # --- what must be ---

    def _enter(self, name: str, slot_ms: int, outcome: SlotOutcome, number: int = 1, step_ms: int = 0) -> None:
        if sentence := self.books[name].settle(slot_ms, outcome, self.state.now_ms, number, step_ms):
            self.wrong.append(f"{name}: {sentence}")

    def _check_nothing_is_held(self) -> None:
        """One leads that knew what there was to plan, and has fired fewer than it may at once."""
        now_ms = self.state.now_ms
        for name, book in self.books.items():
            if book.next_ms <= now_ms:
                self.wrong.append(f"{name}: the slot {book.next_ms} was due, and nothing became of it by {now_ms}")

    def _nothing_due(self) -> bool:
        return all(book.next_ms > self.state.now_ms for book in self.books.values())
