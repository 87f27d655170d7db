"""What a job costs in memory, measured: a million of anything must fit."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, NodeInfo, Usage
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import (
    CancelJob,
    Command,
    DeleteJob,
    Placement,
    PlacePlan,
    RegisterNode,
    ReportAttempts,
    SubmitJob,
    decode_batch,
    encode_batch,
    encode_command,
)
from hasched.statemachine.state import State
from tests.statemachine.machine import T0

TASKS = 20_000
JOBS = 5_000


def do(state: State, command: Command) -> None:
    entry = encode_batch(T0 + state.index, [encode_command(command)])
    assert apply(state, state.index + 1, decode_batch(entry)).faults == []


def grown_bytes(work: Callable[[], None]) -> int:
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    work()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def submission(number: int, count: int = 1) -> SubmitJob:
    spec = JobSpec(name=f"job-{number}", command=("/usr/bin/env", "true", str(number)), count=count)
    return SubmitJob(submission_id=f"{number:032x}", actor="ada", spec=spec)


def test_a_queued_job_costs_less_than_a_kilobyte() -> None:
    state = State()

    def submit() -> None:
        for number in range(JOBS):
            do(state, submission(number))

    assert grown_bytes(submit) / JOBS <= 1000


def test_the_submission_of_a_job_that_is_gone_costs_less_than_200_bytes() -> None:
    state = State()

    def submit_and_forget() -> None:
        for number in range(JOBS):
            do(state, submission(number))
            job_id = state.next_job_id - 1
            do(state, CancelJob(job_id=job_id, actor="ada"))
            do(state, DeleteJob(job_id=job_id, actor="ada"))

    assert grown_bytes(submit_and_forget) / JOBS <= 200
    assert len(state.tombstones) == JOBS


def test_a_waiting_task_of_an_array_costs_less_than_4_bytes_and_an_ended_one_less_than_40() -> None:
    state = State()
    big = Resources(cpu_milli=TASKS * 1000)
    do(state, RegisterNode(node_id="n1", info=NodeInfo(hostname="h", agent_version="1", resources=big)))
    waiting = grown_bytes(lambda: do(state, submission(1, TASKS)))
    assert waiting / TASKS <= 4

    def run() -> None:
        for start in range(0, TASKS, 1000):
            indices = tuple(range(start, start + 1000))
            do(state, PlacePlan(placements=(Placement(1, "n1", indices),)))
            reports = tuple(
                AttemptEnded(1, index, 1, T0 + index, T0 + index + 50, EndKind.EXITED, 0, Usage(5, 2**22))
                for index in indices
            )
            do(state, ReportAttempts(node_id="n1", reports=reports))

    ended = waiting + grown_bytes(run)
    assert state.jobs[1].ended
    assert ended / TASKS <= 40
