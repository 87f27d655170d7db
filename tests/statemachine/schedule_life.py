"""What happens to schedules in a life: commands of people, and plans as leaders make them, now and then a wrong one."""

from __future__ import annotations

from random import Random

from hasched.model.schedule import CatchUp, Overlap, ScheduleSpec, SlotRun
from hasched.model.spec import JobSpec
from hasched.statemachine.commands import (
    BackfillSchedule,
    Command,
    DeleteSchedule,
    PauseSchedule,
    PlanSlots,
    PutSchedule,
    ResumeSchedule,
)
from tests.statemachine.machine import T0, Machine

NAMES = ("hourly", "nightly")


def live_by_schedule(machine: Machine, dice: Random) -> None:
    """Something happens to a schedule, and the leader plans."""
    name = dice.choice(NAMES)
    spec = ScheduleSpec(
        every_ms=dice.choice((100, 400)),
        jitter_ms=dice.choice((0, 0, 300)),
        catch_up=dice.choice(list(CatchUp)),
        catch_up_limit=dice.choice((1, 5)),
        grace_ms=dice.choice((0, 500, 60_000)),
        overlap=dice.choice(list(Overlap)),
        queue_limit=dice.choice((1, 3)),
        late_ms=dice.choice((0, 50)),
        missing_ms=dice.choice((0, 2000)),
        job=JobSpec(name="tick", command=("true",), namespace=dice.choice(("default", "default", "nowhere"))),
    )
    past = machine.now_ms - machine.now_ms % 400 - 4000
    commands: list[Command] = [
        PutSchedule(name=name, spec=spec, actor="ada"),
        PutSchedule(name=name, spec=spec, actor="ada", if_index=dice.choice((0, 1))),
        PauseSchedule(name=name, actor="ada", reason="holidays"),
        ResumeSchedule(name=name, actor="ada"),
        ResumeSchedule(name=name, actor="ada"),
        DeleteSchedule(name=name, actor="ada"),
        BackfillSchedule(
            name=name, actor="ada", runs=(SlotRun(past, 400, dice.choice((1, 3, 20))),), again=dice.random() < 0.3
        ),
    ]
    machine.do(dice.choice(commands))
    machine.do(*(plan for each in NAMES if (plan := plan_of(machine, dice, each)) is not None))
    machine.wait(dice.choice((0, 100, 400)))


def plan_of(machine: Machine, dice: Random, name: str) -> PlanSlots | None:
    """What a leader plans, to somewhere; seldom it doesn't know of another's plan."""
    schedule = machine.state.schedules.get(name)
    if schedule is None:
        return None
    after_ms = schedule.planned_ms - dice.choice((0, 0, 0, 0, 0, 100))
    until_ms = min(after_ms + dice.choice((1, 1000, 3000)), machine.now_ms + 5000)
    if until_ms <= after_ms:
        return None
    every_ms = schedule.spec.every_ms
    first_ms = after_ms + every_ms - (after_ms - T0) % every_ms
    number = (until_ms - first_ms) // every_ms + 1
    runs = (SlotRun(first_ms, every_ms, number, dice.choice((0, 0, 0, 1, 2))),) if number > 0 else ()
    return PlanSlots(name=name, revision=schedule.revision, after_ms=after_ms, until_ms=until_ms, runs=runs)
