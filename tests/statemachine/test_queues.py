"""Queues as they limit: closed ones take no more jobs, and none runs more tasks at once than it may."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.spec import JobSpec
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import Batch, SubmitJob, UpdateJob
from hasched.statemachine.invariants import check
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.snapshot import capture, restore
from tests.statemachine.machine import Machine
from tests.statemachine.test_limits import put, started


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.node(cpu=100)
    machine.node("n2", cpu=100)
    return machine


def entering(name: str, **fields: Any) -> SubmitJob:
    return SubmitJob(submission_id=name, actor="ada", spec=JobSpec(name=name, command=("true",), **fields))


def test_a_closed_queue_takes_no_more_jobs_and_those_in_it_go_on(machine: Machine) -> None:
    put(machine, "queue", "night")
    inside, outside = machine.submit("inside", queue="night"), machine.submit()
    put(machine, "queue", "night", state="closed")
    assert machine.refusal(entering("late", queue="night")) == "queue_closed"
    assert machine.refusal(UpdateJob(job_id=outside.id, actor="ada", queue="night")) == "queue_closed"
    again = machine.outcome(entering("inside", queue="night"))
    assert isinstance(again, JobAccepted) and again.duplicate, "it came in before"
    machine.outcome(UpdateJob(job_id=inside.id, actor="ada", priority=7, queue="night"))
    assert (inside.priority, started(machine, inside)) == (7, 1)
    put(machine, "queue", "night", state="open")
    assert machine.submit("late", queue="night").queue == "night"


def test_a_queue_runs_no_more_tasks_than_it_may(machine: Machine) -> None:
    put(machine, "queue", "night", max_running=3)
    one, two, other = (machine.submit(count=4, queue=queue) for queue in ("night", "night", "day"))
    assert (started(machine, one, 2), started(machine, two), started(machine, other)) == (2, 1, 4)
    machine.end(one)
    machine.place(two, 1, 2, 3)
    assert two.active == 2
    put(machine, "queue", "night", max_running=1)
    machine.end(two)
    assert started(machine, two) == 1, "it runs more than it may already, and nothing is stopped"
    put(machine, "queue", "night", max_running=0)
    assert started(machine, two) == 3


def test_what_runs_counts_in_the_queue_that_its_job_has_now(machine: Machine) -> None:
    put(machine, "queue", "night", max_running=1)
    one, two = machine.submit(queue="day"), machine.submit(queue="night")
    started(machine, one)
    machine.outcome(UpdateJob(job_id=one.id, actor="ada", queue="night"))
    assert started(machine, two) == 0
    captured, chunks = capture(machine.state), []
    while (chunk := captured.next_chunk()) is not None:
        chunks.append(chunk)
    restored = restore(chunks)
    assert restored.usage.queues == machine.state.usage.queues == {"night": 1}
    machine.state.usage.queues["night"] = 2
    assert "queues count {'night': 2} running tasks, their jobs say {'night': 1}" in check(machine.state)
    machine.state.usage.queues["night"] = 1
    machine.outcome(UpdateJob(job_id=one.id, actor="ada", queue="day"))
    assert started(machine, two) == 1


def test_a_gang_starts_only_where_its_queue_may_run_all_of_it(machine: Machine) -> None:
    put(machine, "queue", "night", max_running=2)
    job, other = machine.submit(count=2, gang=True, queue="night"), machine.submit(queue="night")
    started(machine, other)
    machine.gang(job, ("n1", (0,)), ("n2", (1,)))
    assert job.active == 0
    machine.end(other)
    machine.gang(job, ("n1", (0,)), ("n2", (1,)))
    assert job.active == 2


def test_entries_of_an_old_log_know_queues_as_an_order_only(machine: Machine) -> None:
    put(machine, "queue", "night", state="closed")
    old = Batch(1, machine.now_ms, [entering("early", queue="night")])
    (outcome,) = apply(machine.state, machine.state.index + 1, old).outcomes
    assert isinstance(outcome, JobAccepted)
