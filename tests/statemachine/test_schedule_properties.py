"""Whatever leaders plan and however the clock jumps: every slot is settled once, and only when it was due."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.checkers import slots
from chaos.checkers.slots import Settled
from hasched.manager.schedules import plan_slots
from hasched.model.schedule import CatchUp, Overlap, ScheduleSpec
from hasched.model.spec import JobSpec
from hasched.statemachine.commands import PauseSchedule, PlanSlots, PutSchedule, ResumeSchedule
from hasched.statemachine.digest import digest
from hasched.statemachine.events import JobSubmitted, SlotFired, SlotsSkipped
from hasched.statemachine.invariants import check
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.schedules import Schedule, parse_parent
from hasched.statemachine.snapshot import capture, restore
from tests.statemachine.machine import T0, Machine

REFUSALS = ("plan_outdated", "invalid_plan", "too_many_pending")  # of leaders that are late, or ahead
JOB = JobSpec(name="tick", command=("true",))


class Life:
    """One schedule, several who think that they lead, and a clock that jumps."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.machine = Machine()
        self.machine.wait(0)
        self.spec = ScheduleSpec(
            every_ms=1000,
            jitter_ms=dice.choice((0, 0, 2500)),
            catch_up=dice.choice(list(CatchUp)),
            catch_up_limit=dice.choice((1, 7)),
            grace_ms=dice.choice((0, 5000, 60_000)),
            overlap=dice.choice(list(Overlap)),
            queue_limit=dice.choice((1, 5)),
            job=JOB,
        )
        self.machine.do(PutSchedule(name="tick", spec=self.spec, actor="ada"))
        self.known: list[Schedule] = [self.schedule] * 3  # what each who thinks that he leads has seen last
        self.rows: list[Settled] = []
        self.jobs: list[tuple[int, int]] = []

    @property
    def schedule(self) -> Schedule:
        return self.machine.state.schedules["tick"]

    def happen(self) -> None:
        dice, machine = self.dice, self.machine
        match dice.randrange(12):
            case 0 | 1 | 2 | 3:
                leader = dice.randrange(3)
                plan = plan_slots(self.known[leader], machine.now_ms + dice.choice((0, 0, -700, 9000)))
                if plan is not None and dice.random() < 0.9:
                    self.do(plan if dice.random() < 0.8 else shorter(plan))
                if dice.random() < 0.7:
                    self.known[leader] = self.schedule
            case 4:
                machine.now_ms += dice.choice((60_000, 200_000, 4_000_000))
            case 5:
                machine.now_ms -= dice.choice((500, 90_000))
            case 6:
                self.do(PauseSchedule(name="tick", actor="ada"))
            case 7 | 8:
                self.do(ResumeSchedule(name="tick", actor="ada"))
            case 9:
                for job in [job for job in machine.state.jobs.values() if not job.ended][:3]:
                    machine.cancel(job)
            case _:
                machine.now_ms += dice.choice((0, 100, 1000, 7000))
                self.step()

    def do(self, command: PlanSlots | PauseSchedule | ResumeSchedule) -> None:
        before = len(self.machine.events)
        outcome = self.machine.outcome(command)
        assert not isinstance(outcome, Rejected) or outcome.code in REFUSALS, outcome
        self.write_down(before)

    def step(self) -> None:
        before = len(self.machine.events)
        self.machine.wait(0)
        self.write_down(before)

    def write_down(self, before: int) -> None:
        now_ms = self.machine.state.now_ms
        for event in self.machine.events[before:]:
            match event:
                case SlotFired():
                    self.rows.append(Settled(event.slot_ms, 0, 1, event.outcome.name, now_ms, event.job_id))
                case SlotsSkipped():
                    row = Settled(event.first_ms, event.step_ms, event.count, event.outcome.name, now_ms, 0)
                    self.rows.append(row)
                case JobSubmitted(parent=parent, job_id=job_id):
                    found = parse_parent(parent)
                    assert found is not None
                    self.jobs.append((found[1], job_id))

    def settle(self) -> None:
        """One leads, and works until nothing is due."""
        self.do(ResumeSchedule(name="tick", actor="ada"))
        for _ in range(5000):
            now_ms = self.machine.now_ms = max(self.machine.now_ms, self.machine.state.now_ms)
            plan = plan_slots(self.schedule, now_ms)
            if plan is not None and self.schedule.planned_ms < now_ms + 30_000:
                self.do(plan)
            due_ms = next_deadline(self.machine.state)
            if due_ms is not None and due_ms <= now_ms:
                self.step()
            elif self.schedule.waiting or any(each.fire_ms <= now_ms for each in self.schedule.pending):
                for job_id in list(self.machine.state.schedule_jobs.get("tick", {})):
                    self.machine.cancel(self.machine.state.jobs[job_id])
            else:
                return
        raise AssertionError("there is no end")


def shorter(plan: PlanSlots) -> PlanSlots:
    """The same, to a slot less."""
    if len(plan.runs) != 1 or plan.runs[0].number < 2:
        return plan
    run = plan.runs[0]._replace(number=plan.runs[0].number - 1)
    return PlanSlots(name=plan.name, revision=plan.revision, after_ms=plan.after_ms, until_ms=run.last_ms, runs=(run,))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_slot_is_settled_once(seed: int) -> None:
    life = Life(Random(seed))
    for _ in range(60):
        life.happen()
    life.settle()
    schedule = life.schedule
    left = {each.slot_ms: None for each in schedule.pending}
    expected = [slot for slot in range(T0 + 1000, schedule.planned_ms + 1, 1000) if slot not in left]
    assert slots.check("tick", expected, life.rows, life.jobs, life.spec.grace_ms) == []
    assert sum(schedule.counts) == len(expected)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_manager_that_was_filled_goes_on_as_the_others(seed: int) -> None:
    life = Life(Random(seed))
    for _ in range(30):
        life.happen()
    captured = capture(life.machine.state)
    other = Machine()
    other.state = restore(iter(captured.next_chunk, None))
    assert check(other.state) == [] and digest(other.state) == digest(life.machine.state)
    for _ in range(30):
        life.dice = Random(life.dice.random())
        before = len(life.machine.log)
        life.happen()
        for entry in life.machine.log[before:]:
            other.replay(entry)
    assert digest(other.state) == digest(life.machine.state)
