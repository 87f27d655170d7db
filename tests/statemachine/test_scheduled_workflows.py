"""Schedules whose slots execute a workflow."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from hasched.model.schedule import Overlap, ScheduleSpec, SlotRun, WorkflowTarget
from hasched.model.times import format_time
from hasched.model.workflow_text import Library, parse_workflow
from hasched.statemachine.commands import BackfillSchedule, CancelExecution, PlanSlots, PutSchedule, RetryExecution
from hasched.statemachine.outcomes import Done
from hasched.statemachine.queries.schedules import slot_rows
from hasched.statemachine.state import RETENTION_MS
from tests.statemachine.workflow_world import T0, World

MINUTE = 60_000
DOCUMENT = {"name": "w", "parameters": {"x": "1"}, "tasks": {"a": {"command": ["run", "#{params.x}"]}}}


def scheduled(
    slots: int,
    *,
    document: dict[str, Any] = DOCUMENT,
    library: Library | None = None,
    given: dict[str, str] | None = None,
    **fields: Any,
) -> World:
    """A world in which so many slots are planned, a minute apart, from the next minute on."""
    world = World()
    parsed = parse_workflow(document, given={"x": "2"} if given is None else given, library=library)
    target = WorkflowTarget(spec=parsed.spec, params=tuple(parsed.values.items()), version=3)
    spec = ScheduleSpec(every_ms=MINUTE, workflow=target, **fields)
    assert world.do(PutSchedule(name="s", spec=spec, actor="ada")) == Done()
    schedule = world.state.schedules["s"]
    run = SlotRun(T0 + MINUTE, MINUTE, slots)
    until_ms = T0 + slots * MINUTE
    plan = PlanSlots(name="s", revision=schedule.revision, after_ms=T0, until_ms=until_ms, runs=(run,))
    assert world.do(plan) == Done()
    return world


def outcomes(world: World) -> list[tuple[str, str]]:
    rows = slot_rows(world.state, world.state.schedules["s"], 10)
    return [(row.outcome, row.execution_state) for row in reversed(rows)]


def test_each_slot_executes_the_workflow_once() -> None:
    world = scheduled(2)
    world.wait(MINUTE)
    world.fail_over(Random(1))
    execution = world.execution(1)
    assert (execution.version, execution.actor, execution.parent) == (3, "ada", f"schedule/s@{T0 + MINUTE}")
    world.end(world.job("execution/1/a"))
    world.wait(MINUTE)
    assert [each.id for each in world.state.executions.values()] == [1, 2]
    assert outcomes(world) == [("fired", "succeeded"), ("fired", "running")]
    assert world.job("execution/2/a").spec.command == ("run", "2")


@pytest.mark.parametrize(
    ("overlap", "told"),
    [
        (Overlap.FORBID, [("fired", "running"), ("overlap", "")]),
        (Overlap.QUEUE, [("fired", "running")]),
        (Overlap.ALLOW, [("fired", "running"), ("fired", "running")]),
        (Overlap.REPLACE, [("fired", "cancelled"), ("fired", "running")]),
    ],
)
def test_a_run_that_goes_on_is_met_by_the_next_slot(overlap: Overlap, told: list[tuple[str, str]]) -> None:
    world = scheduled(2, overlap=overlap)
    world.wait(MINUTE)
    world.fail_over(Random(2))
    world.wait(MINUTE)
    assert outcomes(world) == told
    if overlap is Overlap.QUEUE:
        world.end(world.job("execution/1/a"), code=1)
        assert outcomes(world) == [("fired", "failed"), ("fired", "running")]


def test_tasks_know_the_slot_that_they_run_for() -> None:
    """Also within inner executions, and when the execution is begun again."""
    script = "load #{execution.slot} of #{execution.schedule}"
    inner = {"name": "inner", "tasks": {"b": {"script": script}, "c": {"after": "b", "command": ["true"]}}}
    outer = {"name": "w", "tasks": {"a": {"workflow": "inner"}}}
    world = scheduled(1, document=outer, library=lambda kind, name: inner, given={})
    world.wait(MINUTE)
    world.fail_over(Random(3))
    slot = format_time(T0 + MINUTE)
    job = world.job("execution/2/b")
    assert job.spec.script == f"load {slot} of s"
    assert (job.spec.env["HASCHED_SLOT"], job.spec.env["HASCHED_SCHEDULE"]) == (slot, "s")
    world.end(job, code=1)
    world.wait(MINUTE)
    assert world.do(RetryExecution(execution_id=1, actor="bob")) == Done()
    world.settle()
    assert world.job("execution/3/b").spec.env["HASCHED_SLOT"] == slot


def test_an_execution_that_no_schedule_has_made_counts_from_its_start() -> None:
    world = World()
    started_ms = world.state.now_ms
    command = ["run", "#{execution.slot}", "#{execution.schedule == null}"]
    world.start(parse_workflow({"name": "w", "tasks": {"a": {"command": command}}}, given={}).spec)
    world.settle()
    job = world.job("execution/1/a")
    assert job.spec.command == ("run", format_time(started_ms), "true")
    assert "HASCHED_SLOT" not in job.spec.env


def test_the_ledger_names_each_execution_also_of_a_slot_that_is_done_again() -> None:
    world = scheduled(1)
    world.wait(MINUTE)
    world.end(world.job("execution/1/a"))
    run = SlotRun(T0 + MINUTE, 0, 1)
    assert world.do(BackfillSchedule(name="s", actor="bob", runs=(run,), again=True)) == Done()
    world.settle()
    world.fail_over(Random(4))
    rows = slot_rows(world.state, world.state.schedules["s"], 10)
    assert [(row.outcome, row.execution_id, row.job_id) for row in rows] == [
        ("backfilled", 2, None),
        ("fired", 1, None),
    ]
    world.wait(2 * RETENTION_MS)
    world.settle()
    gone = slot_rows(world.state, world.state.schedules["s"], 10)
    assert [(row.execution_id, row.execution_state) for row in gone] == [(2, "running"), (1, "")]


def test_a_retried_run_is_the_schedules_again() -> None:
    world = scheduled(2, overlap=Overlap.FORBID)
    world.wait(MINUTE)
    world.do(CancelExecution(execution_id=1, actor="bob"))
    world.settle()
    world.do(RetryExecution(execution_id=1, actor="bob"))
    world.wait(MINUTE)
    assert outcomes(world)[-1] == ("overlap", "")
