"""Entries of version 1, as 0.1 wrote them, mean what they meant to it."""

from __future__ import annotations

import msgspec
import pytest

from hasched.model.dependency import parse_dependency
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind, TaskState
from hasched.model.wire import AttemptEnded, GpuDevice, NodeInfo, Usage
from hasched.model.workflow_text import parse_workflow
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import (
    Batch,
    CancelJob,
    Command,
    DeleteJob,
    Placement,
    PlacePlan,
    RegisterNode,
    ReportAttempts,
    StartExecution,
    StepClock,
    SubmitJob,
)
from hasched.statemachine.digest import digest
from hasched.statemachine.events import DependencyMet
from hasched.statemachine.invariants import check
from hasched.statemachine.outcomes import PlanTaken, Rejected, ReportsTaken
from hasched.statemachine.rules import releases
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import State
from tests.statemachine.machine import GIB, T0

GPUS = tuple(
    GpuDevice(name, model, 16 * GIB) for name, model in zip("abcd", ("A100", "A100", "V100", "V100"), strict=True)
)
INFO = NodeInfo(
    hostname="n1", agent_version="0.1", resources=Resources(cpu_milli=64_000, memory_bytes=GIB, gpus=4), gpus=GPUS
)


def do(state: State, command: Command, version: int = 1) -> Applied:
    applied = apply(state, state.index + 1, Batch(version, T0, [command]))
    assert applied.faults == [] and check(state) == []
    return applied


@pytest.mark.parametrize("gpus", [1, 2, 3])
@pytest.mark.parametrize("version", [1, 2])
def test_gpus_of_a_node_were_all_alike(gpus: int, version: int) -> None:
    state = State()
    do(state, RegisterNode(node_id="n1", info=INFO))
    spec = JobSpec(name="job", command=("true",), count=4, resources=Resources(cpu_milli=1000, gpus=gpus))
    do(state, SubmitJob(submission_id="a", actor="ada", spec=spec))
    placed = {1: 4 // gpus, 2: 2 // gpus}[version]
    assert do(state, PlacePlan(placements=(Placement(1, "n1", (0, 1, 2, 3)),)), version).outcomes == [
        PlanTaken(placed, 4 - placed)
    ]
    captured = capture(state)
    restored = restore(iter(captured.next_chunk, None))
    usage = Usage(1, 1)
    ends = tuple(
        AttemptEnded(1, index, 1, T0, T0 + 1, kind=EndKind.EXITED, code=0, usage=usage) for index in range(placed)
    )
    for each in (state, restored):
        if version == 1:
            assert do(each, PlacePlan(placements=(Placement(1, "n1", (3,)),)), 2).outcomes == [PlanTaken(0, 1)]
        assert do(each, ReportAttempts(node_id="n1", reports=ends), 2).outcomes == [ReportsTaken(())]
        node = each.nodes["n1"]
        assert (node.allocated_gpus, node.allocated_gpu_kinds) == (0, {})
    assert digest(state) == digest(restored)


@pytest.mark.parametrize(
    "told",
    [
        {"pool": "no name"},
        {"attributes": {"a": "b" * 1000}},
        {"labels": {"rack": "r" * 1000}},
        {"resources": Resources(cpu_milli=1, disk_bytes=-1)},
    ],
)
def test_of_an_inventory_only_its_amounts_were_looked_at(told: dict[str, object]) -> None:
    command = RegisterNode(node_id="n1", info=msgspec.structs.replace(INFO, **told))
    assert not isinstance(do(State(), command).outcomes[0], Rejected)
    assert isinstance(do(State(), command, 2).outcomes[0], Rejected)
    impossible = msgspec.structs.replace(INFO, resources=Resources(cpu_milli=-1))
    assert isinstance(do(State(), RegisterNode(node_id="n1", info=impossible)).outcomes[0], Rejected)


def test_whoever_waited_was_given_a_copy_of_an_end_that_was_forgotten() -> None:
    """Entries of version 3. What such a state has is understood by later ones."""
    state = State()
    specs = [JobSpec(name="first", command=("true",), count=2)]
    for word in ("afternotok", "aftercorr", "after"):
        specs.append(JobSpec(name=word, command=("true",), count=2, dependency=parse_dependency(f"{word}:1")))
    for number, spec in enumerate(specs):
        do(state, SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec), 3)
    do(state, CancelJob(job_id=1, actor="ada"), 3)
    do(state, DeleteJob(job_id=1, actor="ada"), 3)
    assert not state.kept_ends
    assert all(job.log_index == state.index for job in state.jobs.values()), "each was written"
    captured = capture(state)
    restored = restore(iter(captured.next_chunk, None))
    for each in (state, restored):
        do(each, StepClock(), 4)
        assert [job.eligible for job in each.jobs.values()] == [2, 0, 2]
        assert each.jobs[3].state is TaskState.CANCELLED
    assert digest(state) == digest(restored)


def test_an_old_entry_loses_no_end_that_a_newer_one_has_kept() -> None:
    """A job waits for two that are forgotten, the first by an entry of version 4 and the other by one of version 3."""
    state = State()
    dependency = parse_dependency("aftercorr:1,afterany:2,afterany:3")
    others = [JobSpec(name="other", command=("true",), count=2) for _ in range(3)]
    for number, spec in enumerate([*others, JobSpec(name="w", command=("true",), count=2, dependency=dependency)]):
        do(state, SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec), 3)
    for job_id, version in ((1, 4), (2, 3)):
        do(state, CancelJob(job_id=job_id, actor="ada"), version)
        do(state, DeleteJob(job_id=job_id, actor="ada"), version)
    assert list(state.kept_ends) == [1]
    captured = capture(state)
    assert digest(restore(iter(captured.next_chunk, None))) == digest(state)
    do(state, CancelJob(job_id=3, actor="ada"), 4)
    for _ in range(3):
        do(state, StepClock(), 4)
    assert state.jobs[4].state is TaskState.CANCELLED


@pytest.mark.parametrize(("version", "jobs"), [(3, 1), (4, 3)])
def test_a_step_counted_all_that_a_job_waited_for(version: int, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "MAX_CONDITIONS_PER_STEP", 3)
    state = State()
    others = [JobSpec(name="other", command=("true",)) for _ in range(4)]
    waiting = [JobSpec(name="w", command=("true",), dependency=parse_dependency("afterany:1:2:3:4")) for _ in range(5)]
    for number, spec in enumerate([*others, *waiting]):
        do(state, SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec), version)
    do(state, CancelJob(job_id=1, actor="ada"), version)
    met = do(state, StepClock(), version).events
    assert sum(isinstance(event, DependencyMet) for event in met) == jobs


@pytest.mark.parametrize(("version", "told"), [(3, ""), (4, ',"slot":"2023-11-14T22:13:20Z","schedule":null')])
def test_what_tasks_were_given_of_an_execution_had_no_slot(version: int, told: str) -> None:
    state = State()
    document = {"name": "w", "tasks": {"a": {"command": ["run", "#{execution}"]}}}
    spec = parse_workflow(document, given={}).spec
    do(state, StartExecution(submission_id="s", actor="ada", spec=spec), version)
    do(state, StepClock(), version)
    (job,) = state.jobs.values()
    assert job.spec.command == ("run", f'{{"id":1,"workflow":"w","state":"running"{told}}}')


@pytest.mark.parametrize("version", [3, 4])
def test_who_is_told_of_jobs_of_a_workflow_was_looked_at_as_they_began(version: int) -> None:
    state = State()
    job = {"command": ["run"], "notify": {"targets": ["nobody"]}}
    spec = parse_workflow({"name": "w", "tasks": {"a": job}}, given={}).spec
    (outcome,) = do(state, StartExecution(submission_id="s", actor="ada", spec=spec), version).outcomes
    assert isinstance(outcome, Rejected) == (version >= 4)
    do(state, StepClock(), version)
    assert not state.jobs
