"""Random workflows, random failures, random fail-overs: what comes of them is what the reference says."""

from __future__ import annotations

from random import Random

import pytest

from hasched.model.states import TaskState
from hasched.model.workflow import WorkflowSpec
from hasched.statemachine.commands import CancelExecution, RetryExecution
from hasched.statemachine.outcomes import Rejected
from tests.statemachine.workflow_reference import Reference
from tests.statemachine.workflow_world import World, random_workflow, with_check, with_webhooks

SEEDS = range(60)
MAX_ROUNDS = 3


def carry_out(dice: Random, world: World, execution_id: int, reference: Reference) -> None:
    """Let jobs end one after the other in any order; after each, both say that the same runs."""
    cancels = dice.choice((0, 0, 0, 1, 2))
    fails = dice.choice((0.0, 0.2, 0.5))
    while not world.execution(execution_id).ended:
        if dice.random() < 0.2:
            world.fail_over(dice)
        running = world.running(execution_id)
        assert running.keys() == reference.running.keys()
        if cancels and dice.random() < 0.15:
            cancels -= 1
            assert not isinstance(world.do(CancelExecution(execution_id=execution_id, actor="bob")), Rejected)
            world.settle()
            tell_stops(world, execution_id, reference, before=True)
            continue
        place = dice.choice(list(running))
        job = running[place]
        if dice.random() < 0.5:
            world.run(job)
            continue
        good = dice.random() >= fails
        stopped = world.stopped(job)
        world.end(job, code=0 if good else 7)
        reference.end(*place, True if good else None if stopped else False)
        tell_stops(world, execution_id, reference, before=False)
    assert reference.ended


def tell_stops(world: World, execution_id: int, reference: Reference, *, before: bool) -> None:
    """What waited and was no longer wanted has ended by itself: the engine stops it, which the reference knows nothing of."""
    if before:
        reference.cancel()
    for place in list(reference.running):
        jobs = [job for job in world.state.jobs.values() if job.parent == _parent(world, execution_id, place)]
        if jobs[-1].ended and jobs[-1].state is TaskState.CANCELLED:
            reference.end(*place, None)


def _parent(world: World, execution_id: int, place: tuple[str, int]) -> str:
    name, instance = place
    plan = world.execution(execution_id).plan
    fans_out = plan.spec.tasks[plan.row_of[name]].fans_out
    return f"execution/{execution_id}/{name}" + (f"[{instance}]" if fans_out else "")


@pytest.mark.parametrize("seed", SEEDS)
def test_an_execution_ends_as_the_reference_says(seed: int) -> None:
    dice = Random(seed)
    follow(dice, random_workflow(dice))


@pytest.mark.parametrize("seed", SEEDS[:20])
def test_what_could_not_run_whole_does_not_begin_as_the_reference_says(seed: int) -> None:
    dice = Random(seed)
    follow(dice, with_check(dice, random_workflow(dice)))


@pytest.mark.parametrize("seed", SEEDS[:30])
def test_webhooks_are_told_once_at_each_of_their_turns_as_the_reference_says(seed: int) -> None:
    dice = Random(seed)
    follow(dice, with_webhooks(dice, random_workflow(dice)))


def follow(dice: Random, spec: WorkflowSpec) -> None:
    """Carry out an execution of it, and begin it again while it doesn't succeed."""
    world = World()
    world.put_notification()
    execution_id = world.start(spec)
    reference = Reference(spec)
    for _ in range(MAX_ROUNDS):
        carry_out(dice, world, execution_id, reference)
        assert world.states(execution_id) == reference.state
        assert world.execution(execution_id).state.name.lower() == reference.result
        assert sorted(world.told()) == sorted(reference.told)
        if isinstance(world.do(RetryExecution(execution_id=execution_id, actor="bob")), Rejected):
            assert reference.result == "succeeded"
            break
        world.settle()
        reference.retry()
    world.fail_over(Random(1))
