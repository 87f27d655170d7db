"""Quotas that count only the jobs of workflows, or only the others."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.policy_text import parse_policy
from hasched.model.spec import JobSpec, Resources
from hasched.model.wire import NodeInfo
from hasched.model.workflow_text import parse_workflow
from hasched.model.yaml_text import read_documents
from hasched.scheduler.limits import shortages_of
from hasched.statemachine.commands import Placement, PlacePlan, PutPolicy, RegisterNode, SubmitJob
from hasched.statemachine.digest import digest
from hasched.statemachine.invariants import check, check_limits
from hasched.statemachine.outcomes import JobAccepted, Rejected
from hasched.statemachine.queries import limits_in_use
from hasched.statemachine.snapshot import records, restore
from hasched.statemachine.state import Job
from hasched.statemachine.weeks import WEEK_MS
from tests.statemachine.workflow_world import World

HOUR_MS = 3_600_000
FAN = """
name: fan
tasks:
  each:
    for_each: [1, 2, 3]
    job: {command: [work], resources: {gpus: 1}}
"""


@pytest.fixture
def world() -> World:
    world = World()
    resources = Resources(cpu_milli=10**9, memory_bytes=2**40, gpus=8)
    world.do(RegisterNode(node_id="n1", info=NodeInfo(hostname="n1", agent_version="1", resources=resources)))
    return world


def put(world: World, name: str, **document: Any) -> None:
    kind, body = parse_policy("quota", name, document)
    outcome = world.do(PutPolicy(kind=kind, name=name, body=body, actor="root"))
    assert not isinstance(outcome, Rejected), outcome


def submit(world: World, **resources: int) -> Job | Rejected:
    spec = JobSpec(name="alone", command=("true",), resources=Resources(**resources))
    outcome = world.do(SubmitJob(submission_id=f"alone {world.state.index}", actor="ada", spec=spec))
    if isinstance(outcome, Rejected):
        return outcome
    assert isinstance(outcome, JobAccepted)
    return world.state.jobs[outcome.job_id]


def fan_out(world: World) -> list[Job]:
    """The three jobs of an execution."""
    before = world.state.next_job_id
    world.start(parse_workflow(read_documents(FAN, "w.yaml")[0].value).spec)
    return [job for job in world.state.jobs.values() if job.id >= before]


def started(world: World, jobs: list[Job]) -> int:
    for job in jobs:
        world.do(PlacePlan(placements=(Placement(job.id, "n1", (0,)),)))
    assert check(world.state) == check_limits(world.state) == []
    return sum(bool(job.active) for job in jobs)


def used(world: World, name: str, amount: str = "gpus") -> int:
    (found,) = (each for each in limits_in_use(world.state, name=name).limits if each.amount == amount)
    return found.used


@pytest.mark.parametrize(
    ("scope", "of_workflows", "others"),
    [
        pytest.param("any", 2, 0, id="any job counts"),
        pytest.param("workflow", 2, 3, id="the jobs of workflows count"),
        pytest.param("job", 3, 2, id="jobs of no workflow count"),
    ],
)
def test_a_scope_says_which_jobs_count(world: World, scope: str, of_workflows: int, others: int):
    put(world, "q", scope=scope, limits={"gpus": 2})
    assert started(world, fan_out(world)) == of_workflows
    alone = [submit(world, gpus=1) for _ in range(3)]
    assert started(world, [job for job in alone if isinstance(job, Job)]) == others


def test_what_waits_says_which_quota_and_by_how_much(world: World):
    put(world, "flows", scope="workflow", limits={"gpus": 2})
    jobs = fan_out(world)
    started(world, jobs)
    (short,) = shortages_of(world.state, jobs[2])
    assert short.text == "quota flows (workflows): 1 GPU asked for, 2 of 2 in use, 1 too little"
    alone = submit(world, gpus=1)
    assert isinstance(alone, Job)
    assert list(shortages_of(world.state, alone)) == []


def test_what_could_never_start_waits_for_the_quota_within_a_workflow_and_is_refused_outside(world: World):
    put(world, "flows", scope="workflow", limits={"gpus": 0})
    put(world, "jobs", scope="job", limits={"cpu": 1})
    assert fan_out(world) == []
    assert next(iter(world.state.executions.values())).wake_ms
    refused = submit(world, cpu_milli=2000)
    assert isinstance(refused, Rejected)
    assert refused.cause == (
        "quota jobs (jobs of no workflow): 2 CPU asked for, 0 of 1 in use, 1 too little; it could never start"
    )


def test_the_queue_of_a_workflow_is_as_long_as_its_quota_lets_it(world: World):
    put(world, "flows", scope="workflow", limits={"queued_jobs": 2})
    assert len(fan_out(world)) == 2
    assert isinstance(submit(world), Job)
    world.end(world.job("execution/1/each[0]"))
    world.wait(60_000)
    assert [job.parent for job in world.jobs() if job.parent] == ["execution/1/each[1]", "execution/1/each[2]"]


def test_in_a_tree_the_quota_with_the_scope_is_the_most_exact(world: World):
    put(world, "all", cohort=True)
    put(world, "flows", scope="workflow", parent="all", limits={"gpus": 1})
    put(world, "zoo", parent="all", limits={"gpus": 2}, lend={"gpus": 0})
    assert started(world, fan_out(world)) == 1
    assert (used(world, "flows"), used(world, "zoo")) == (1, 0)


@pytest.mark.parametrize("scope", ["workflow", "job"])
def test_a_quota_put_later_counts_what_runs_already_and_so_does_another_manager(world: World, scope: str):
    jobs = fan_out(world)
    alone = submit(world, gpus=4)
    assert isinstance(alone, Job)
    assert started(world, [*jobs, alone]) == 4
    put(world, "q", scope=scope, limits={"gpus": 10, "running_jobs": 10, "gpu_hours_per_week": 10})
    world.now_ms += HOUR_MS
    world.end(jobs[0])
    expected = (2, 2, 3 * HOUR_MS) if scope == "workflow" else (4, 1, 4 * HOUR_MS)
    assert (used(world, "q"), used(world, "q", "running_jobs"), used(world, "q", "gpu_hours_per_week")) == expected
    before = digest(world.state)
    world.state = restore(records(world.state))
    assert digest(world.state) == before
    assert check(world.state) == []
    assert (used(world, "q"), used(world, "q", "running_jobs"), used(world, "q", "gpu_hours_per_week")) == expected


def test_workflows_that_have_used_up_their_gpu_hours_wait_for_the_next_week(world: World):
    put(world, "flows", scope="workflow", limits={"gpu_hours_per_week": 1})
    jobs = fan_out(world)
    started(world, jobs[:1])
    world.now_ms += 2 * HOUR_MS
    world.end(jobs[0])
    world.state = restore(records(world.state))
    waiting = world.jobs()
    assert started(world, waiting) == 0
    (short,) = shortages_of(world.state, waiting[0])
    assert short.text == "quota flows (workflows): 2 of 1 GPU-hours a week are used"
    world.now_ms += WEEK_MS
    assert started(world, waiting) == 2
