"""Random jobs that wait for each other, random ends, deletions and fail-overs: tasks start and end as the reference says."""

from __future__ import annotations

from random import Random

import pytest

from hasched.model.spec import Condition, Dependency, JobSpec, Resources
from hasched.model.states import ConditionKind, EndKind, OnBrokenDependency, TaskState
from hasched.statemachine.commands import DeleteJob, SubmitJob
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import RETENTION_MS
from tests.statemachine.machine import Machine, retries
from tests.support.waiting import Reference

SEEDS = range(40)
STEPS = 80
COUNTS = (1, 1, 3)


class World:
    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.machine = Machine()
        self.reference = Reference()
        self.machine.node(cpu=64)
        self.heard = 0

    def hear(self) -> None:
        for event in self.machine.events[self.heard :]:
            assert list(self.reference.see(event, self.machine.now_ms)) == []
        self.heard = len(self.machine.events)

    def settle(self) -> None:
        while (due_ms := next_deadline(self.machine.state)) is not None and due_ms <= self.machine.now_ms:
            self.machine.wait(0)
            self.hear()

    def submit(self) -> None:
        dice, machine = self.dice, self.machine
        count = dice.choice(COUNTS)
        conditions: dict[Condition, None] = {}
        for kind in dice.choices(list(ConditionKind), k=dice.choice((0, 1, 1, 2, 3))):
            others = list(machine.state.jobs.values())[-6:]
            if kind is ConditionKind.AFTERCORR:
                others = [job for job in others if job.count == count]
            if kind is ConditionKind.SINGLETON:
                conditions[Condition(kind)] = None
            elif others:
                delay_ms = dice.choice((0, 5000)) if kind is ConditionKind.AFTER else 0
                conditions[Condition(kind, dice.choice(others).id, delay_ms)] = None
        alone = len(conditions) < 2 or not any(each.kind is ConditionKind.AFTERCORR for each in conditions)
        any_of = alone and len(conditions) > 1 and dice.random() < 0.4
        spec = JobSpec(
            name=dice.choice(("nightly", "hourly")),
            command=("true",),
            count=count,
            resources=Resources(),
            retries=retries(dice.choice((0, 0, 1))),
            dependency=Dependency(tuple(conditions), any_of) if conditions else None,
            on_broken_dependency=dice.choice((*OnBrokenDependency, OnBrokenDependency.CANCEL)),
            deadline_after_ms=dice.choice((0, 0, 0, 0, 20_000)),
        )
        outcome = machine.outcome(SubmitJob(submission_id=f"s{machine.state.index}", actor="ada", spec=spec))
        assert isinstance(outcome, JobAccepted), outcome

    def act(self) -> None:
        dice, machine = self.dice, self.machine
        live = [job for job in machine.state.jobs.values() if not job.ended]
        match dice.randrange(10):
            case 0 | 1 | 2:
                self.submit()
            case 3 | 4 if live:
                job = dice.choice(live)
                machine.place(job, *range(job.count))
            case 5 | 6 | 7 if live:
                job = dice.choice(live)
                for index, active in sorted((job.active_attempts or {}).items()):
                    if dice.random() < 0.7:
                        started = active.state is TaskState.RUNNING or dice.random() < 0.5
                        if started:
                            machine.start(job, index, active.attempt)
                        if dice.random() < 0.7:
                            kind = EndKind.EXITED if started else EndKind.LAUNCH_FAILED
                            machine.end(job, index, active.attempt, kind=kind, code=dice.choice((0, 0, 1)))
            case 8 if live and dice.random() < 0.5:
                job = dice.choice(live)
                machine.cancel(job, *dice.choice(((), (0,))))
            case 9:
                self.forget()
            case _:
                machine.now_ms += dice.choice((100, 6000))
        self.hear()

    def forget(self) -> None:
        """Jobs that have ended go, most at once after their end; or another manager leads on."""
        ended = [job.id for job in self.machine.state.jobs.values() if job.ended]
        if ended and self.dice.random() < 0.5:
            self.machine.do(DeleteJob(job_id=ended[-1], actor="ada"))
        else:
            taken = capture(self.machine.state)
            chunks = []
            while (chunk := taken.next_chunk()) is not None:
                chunks.append(chunk)
            self.machine.state = restore(chunks)

    def compare(self) -> None:
        """Everything that is due was done: what waits is what the reference says, task by task."""
        for job in self.machine.state.jobs.values():
            if job.ended or job.ending:
                continue
            for index in range(job.count):
                if job.task_state(index) is TaskState.PENDING:
                    verdict = self.reference.may_start(job.id, index)
                    assert job.is_eligible(index) is (verdict is True), (job.id, index, verdict)
                    stays = job.spec.on_broken_dependency is OnBrokenDependency.WAIT
                    later = job.waits is not None and job.waits.whole  # task by task comes after the whole
                    assert verdict is not False or stays or later, (job.id, index)


@pytest.mark.parametrize("seed", SEEDS)
def test_tasks_start_and_end_as_the_reference_says(seed: int):
    world = World(Random(seed))
    for _ in range(STEPS):
        world.act()
        if world.dice.random() < 0.7:
            world.settle()
            world.compare()
    world.machine.now_ms += RETENTION_MS
    world.settle()
    for job in list(world.machine.state.jobs.values()):
        if not job.ended and not job.waits:
            world.machine.cancel(job)
            world.hear()
    world.settle()
    world.compare()
