"""Jobs that wait for other jobs: when they start, when they never will, and that none is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.dependency import parse_dependency
from hasched.model.spec import Condition, Dependency, JobSpec, Resources
from hasched.model.states import ConditionKind, OnBrokenDependency, TaskState
from hasched.statemachine import queries
from hasched.statemachine.commands import DeleteJob, SubmitJob, UpdateJob
from hasched.statemachine.digest import digest
from hasched.statemachine.events import DependencyBroken, DependencyMet, TasksReleased
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import dependencies, releases
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import RETENTION_MS, Job
from tests.statemachine.machine import Machine, retries

NOTHING = Resources()


class World(Machine):
    """Whatever is due is done at once, as by a leader."""

    def __init__(self) -> None:
        super().__init__()
        self.node(cpu=64)

    def submit_after(self, dependency: str, **fields: Any) -> Job:
        job = self.submit(dependency=parse_dependency(dependency), resources=NOTHING, **fields)
        self.settle()
        return job

    def settle(self) -> None:
        while (due_ms := next_deadline(self.state)) is not None and due_ms <= self.now_ms:
            self.wait(0)

    def run(self, job: Job, *indices: int, code: int = 0) -> None:
        """Tasks of the job start, and end with this exit code."""
        for index in indices or range(job.count):
            self.place(job, index)
            self.start(job, index, job.attempts_made(index))
            self.end(job, index, job.attempts_made(index), code=code)
        self.settle()

    def fail_over(self) -> None:
        """Another manager goes on, from a snapshot."""
        taken = capture(self.state)
        chunks = []
        while (chunk := taken.next_chunk()) is not None:
            chunks.append(chunk)
        self.state = restore(chunks)


@pytest.fixture
def world() -> World:
    return World()


def waits(world: World, job: Job) -> bool:
    """Whether nothing of the job may start: neither does the planner see it, nor is a plan taken that places it."""
    job = world.state.jobs[job.id]
    eligible = job.eligible
    world.place(job, 0)
    assert job.active == bool(eligible)
    return not eligible


@pytest.mark.parametrize(
    ("condition", "code", "starts"),
    [
        ("afterok", 0, True),
        ("afterok", 1, False),
        ("afternotok", 0, False),
        ("afternotok", 1, True),
        ("afterany", 0, True),
        ("afterany", 1, True),
        ("aftercorr", 0, True),
        ("aftercorr", 1, False),
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["it ends while the other waits", "it had ended before"])
def test_a_job_starts_or_ends_with_what_another_came_to(
    world: World, condition: str, code: int, starts: bool, before: bool
):
    first = world.submit(resources=NOTHING)
    if before:
        second = world.submit_after(f"{condition}:{first.id}")
        assert waits(world, second)
        world.run(first, code=code)
    else:
        world.run(first, code=code)
        second = world.submit_after(f"{condition}:{first.id}")
    if starts:
        assert not waits(world, second)
        return
    assert second.state is TaskState.CANCELLED
    view = queries.job_view(world.state, second.id)
    assert view is not None and view.reason is not None
    assert view.reason.code == "dependency_never_satisfied"
    assert f"{condition}:{first.id}" in view.reason.text


def test_a_retry_is_not_yet_an_outcome(world: World):
    first = world.submit(resources=NOTHING, retries=retries(1))
    second = world.submit_after(f"afterok:{first.id}")
    world.run(first, code=1)
    assert waits(world, second)
    world.run(first)
    assert not waits(world, second)


def test_all_conditions_hold_before_a_job_starts(world: World):
    a, b = world.submit(resources=NOTHING), world.submit(resources=NOTHING)
    job = world.submit_after(f"afterok:{a.id}:{b.id}")
    world.run(b)
    assert waits(world, job)
    assert queries.show_job(world.state, job, True).state == "PENDING"
    world.run(a)
    assert not waits(world, job)


def test_any_condition_is_enough(world: World):
    a, b, c = (world.submit(resources=NOTHING) for _ in range(3))
    job = world.submit_after(f"afterok:{a.id}?afternotok:{b.id}?afterok:{c.id}")
    world.run(a, code=1)
    world.run(b)
    assert waits(world, job)
    world.run(c)
    assert not waits(world, job)


def test_when_no_alternative_is_left_the_job_ends(world: World):
    a, b = world.submit(resources=NOTHING), world.submit(resources=NOTHING)
    job = world.submit_after(f"afterok:{a.id}?afterok:{b.id}")
    world.run(a, code=1)
    assert not job.ended
    world.cancel(b)
    world.settle()
    assert job.state is TaskState.CANCELLED
    broken = [event for event in world.events if isinstance(event, DependencyBroken)]
    assert [event.hopeless for event in broken] == [False, True]


def test_a_chain_ends_as_a_whole(world: World):
    jobs = [world.submit(resources=NOTHING)]
    for _ in range(5):
        jobs.append(world.submit_after(f"afterok:{jobs[-1].id}"))
    world.run(jobs[0], code=1)
    assert [job.state.name for job in jobs] == ["FAILED", *["CANCELLED"] * 5]


def test_a_job_may_rather_stay(world: World):
    first = world.submit(resources=NOTHING)
    job = world.submit_after(f"afterok:{first.id}", on_broken_dependency=OnBrokenDependency.WAIT)
    world.run(first, code=1)
    assert waits(world, job)
    world.do(DeleteJob(job_id=first.id, actor="ada"))
    world.fail_over()
    world.settle()
    job = world.state.jobs[job.id]
    assert waits(world, job)
    world.cancel(job)
    assert job.state is TaskState.CANCELLED


def test_a_time_that_nothing_comes_of_keeps_no_clock_going(world: World):
    """The job stays though one condition is broken, and the delay of the other runs out."""
    first, second = world.submit(resources=NOTHING), world.submit(resources=NOTHING)
    dependency = f"after:{first.id}+1m,afterok:{second.id}"
    job = world.submit_after(dependency, on_broken_dependency=OnBrokenDependency.WAIT)
    world.run(first)
    world.run(second, code=1)
    for _ in range(2):
        world.wait(60_000)
        due_ms = next_deadline(world.state)
        assert due_ms is not None and due_ms > world.now_ms
        world.fail_over()
        world.wait(0)
    assert waits(world, job)


def test_after_a_start_and_so_long(world: World):
    first = world.submit(resources=NOTHING)
    soon, later = world.submit_after(f"after:{first.id}"), world.submit_after(f"after:{first.id}+10m")
    world.place(first)
    world.settle()
    assert waits(world, soon)
    world.start(first)
    world.settle()
    assert not waits(world, soon)
    assert waits(world, later)
    world.fail_over()
    later = world.state.jobs[later.id]
    world.wait(599_999)
    assert waits(world, later)
    world.wait(1)
    assert not waits(world, later)


def test_many_delays_that_run_out_at_once_are_one_time_to_look(world: World):
    others = [world.submit(resources=NOTHING) for _ in range(5)]
    job = world.submit_after(f"after:{'+1m:'.join(str(each.id) for each in others)}+1m")
    for each in others:
        world.cancel(each)
    world.settle()
    assert len(world.state.dependants.timers) == 1 and waits(world, job)
    world.fail_over()
    assert len(world.state.dependants.timers) == 1
    world.wait(60_000)
    assert not waits(world, job) and not world.state.dependants.timers


def test_what_never_started_counts_from_its_end(world: World):
    first = world.submit(resources=NOTHING)
    job = world.submit_after(f"after:{first.id}+1m")
    world.cancel(first)
    world.settle()
    assert waits(world, job)
    world.wait(60_000)
    assert not waits(world, job)


def test_singletons_run_one_after_the_other(world: World):
    plain = world.submit(resources=NOTHING, name="nightly")
    jobs = [world.submit_after("singleton", name="nightly") for _ in range(3)]
    other = world.submit_after("singleton", name="hourly")
    elsewhere = world.submit_after("singleton", name="nightly", namespace="default", queue="elsewhere")
    assert not waits(world, other)
    assert waits(world, jobs[0]) and waits(world, elsewhere)
    world.cancel(jobs[1])  # one in the middle
    world.run(plain, code=1)
    assert not waits(world, jobs[0])
    assert waits(world, jobs[2])
    world.fail_over()
    world.end(jobs[0])
    world.settle()
    assert not waits(world, jobs[2])
    assert waits(world, elsewhere)


def test_another_users_job_of_the_name_is_another(world: World):
    world.submit(resources=NOTHING, name="nightly")
    spec = JobSpec(name="nightly", command=("true",), dependency=parse_dependency("singleton"))
    world.do(SubmitJob(submission_id="bobs", actor="bob", spec=spec))
    world.settle()
    assert not waits(world, world.state.jobs[2])


def test_element_by_element(world: World):
    first = world.submit(resources=NOTHING, count=4)
    job = world.submit_after(f"aftercorr:{first.id}", count=4)
    assert job.eligible == 0
    world.run(first, 2)
    assert list(job.pending_indices()) == [2]
    world.run(first, 0, code=1)
    assert job.task_state(0) is TaskState.CANCELLED
    task = queries.show_task(world.state, job, 0, False)
    assert task.reason is not None and task.reason.code == "dependency_never_satisfied"
    world.run(job, 2)
    world.cancel(first, 1)
    world.settle()
    assert job.task_state(1) is TaskState.CANCELLED
    assert not job.ended
    world.fail_over()
    first, job = world.state.jobs[first.id], world.state.jobs[job.id]
    world.run(first, 3)
    assert list(job.pending_indices()) == [3]
    assert job.waits is None
    world.run(job, 3)
    assert job.state is TaskState.CANCELLED  # as two of its tasks are


def test_element_by_element_of_two_jobs_and_a_whole(world: World):
    a, b = world.submit(resources=NOTHING, count=3), world.submit(resources=NOTHING, count=3)
    whole = world.submit(resources=NOTHING)
    job = world.submit_after(f"aftercorr:{a.id}:{b.id},after:{whole.id}+1m", count=3)
    world.run(a, 0, 1)
    world.run(b, 1, 2)
    world.run(whole)
    assert job.eligible == 0
    world.wait(60_000)
    assert list(job.pending_indices()) == [1]
    world.run(a, 2)
    world.do(DeleteJob(job_id=a.id, actor="ada"))
    world.run(b, 0, code=1)
    assert list(job.pending_indices()) == [1, 2]
    assert job.task_state(0) is TaskState.CANCELLED


@pytest.mark.parametrize("way", ["deleted", "expired"])
@pytest.mark.parametrize(("code", "state"), [(0, TaskState.PENDING), (1, TaskState.CANCELLED)])
def test_a_job_that_is_forgotten_before_it_was_looked_at_strands_nobody(
    world: World, way: str, code: int, state: TaskState
):
    first = world.submit(resources=NOTHING, count=2)
    after = [world.submit_after(f"{word}:{first.id}", count=2) for word in ("afterok", "aftercorr", "after")]
    for index in (0, 1):
        world.place(first, index)
        world.end(first, index, code=code)
    assert first.ended
    if way == "deleted":
        world.do(DeleteJob(job_id=first.id, actor="ada"))
    else:
        world.wait(RETENTION_MS)
    before = digest(world.state)
    world.fail_over()
    assert digest(world.state) == before
    world.settle()
    assert not world.state.kept_ends
    assert [world.state.jobs[job.id].state for job in after] == [state, state, TaskState.PENDING]
    assert world.state.jobs[after[2].id].eligible == 2


@pytest.mark.parametrize(
    ("dependency", "code"),
    [
        ("afterok:77", "unknown_dependency"),
        ("afterok:3", "unknown_dependency"),  # itself
        ("afterany:1", "dependency_gone"),
        ("aftercorr:2", "dependency_mismatch"),
    ],
)
def test_what_can_not_be_waited_for_is_refused(world: World, dependency: str, code: str):
    world.cancel(world.submit())
    world.do(DeleteJob(job_id=1, actor="ada"))
    world.submit(count=2)
    spec = JobSpec(name="late", command=("true",), dependency=parse_dependency(dependency))
    assert world.refusal(SubmitJob(submission_id="late", actor="ada", spec=spec)) == code


def test_the_tasks_of_a_gang_are_not_waited_for_one_by_one(world: World):
    gang = world.submit(count=2, gang=True)
    spec = JobSpec(name="late", command=("true",), count=2, dependency=parse_dependency(f"aftercorr:{gang.id}"))
    refused = world.outcome(SubmitJob(submission_id="late", actor="ada", spec=spec))
    assert isinstance(refused, Rejected) and refused.code == "dependency_mismatch"


@pytest.mark.parametrize("bound", ["MAX_LOOKED_AT_PER_STEP", "MAX_CONDITIONS_PER_STEP"])
def test_many_wait_for_one(world: World, monkeypatch: pytest.MonkeyPatch, bound: str):
    """What is left over from a step is due at once, in the next."""
    monkeypatch.setattr(releases, bound, 3)
    first = world.submit(resources=NOTHING)
    jobs = [world.submit_after(f"afterok:{first.id}") for _ in range(10)]
    world.place(first)
    world.end(first)
    released = world.wait(0).events
    assert sum(isinstance(event, TasksReleased) for event in released) == 3
    world.fail_over()
    world.settle()
    assert all(world.state.jobs[job.id].eligible for job in jobs)


def test_tasks_of_a_step_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(releases, "MAX_TASKS_PER_STEP", 3)
    first = world.submit(resources=NOTHING, count=10)
    for index in range(10):
        world.place(first, index)
        world.end(first, index, code=index % 3)
    job = world.submit(resources=NOTHING, count=10, dependency=parse_dependency(f"aftercorr:{first.id}"))
    for _ in range(4):
        world.wait(0)
        world.fail_over()
    job = world.state.jobs[job.id]
    assert list(job.pending_indices()) == [0, 3, 6, 9]
    assert job.counts[TaskState.CANCELLED] == 6


def test_so_many_may_wait_for_one(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dependencies, "MAX_DEPENDANTS", 1)
    first = world.submit()
    world.submit_after(f"afterok:{first.id}")
    spec = JobSpec(name="late", command=("true",), dependency=parse_dependency(f"afterok:{first.id}"))
    assert world.refusal(SubmitJob(submission_id="late", actor="ada", spec=spec)) == "too_many_dependants"


def test_a_job_that_ends_while_it_waits_waits_no_more(world: World):
    first = world.submit(resources=NOTHING)
    cancelled = world.submit_after(f"afterok:{first.id}")
    late = world.submit_after(f"afterok:{first.id}", deadline_after_ms=1000)
    world.cancel(cancelled)
    world.wait(1000)
    assert (cancelled.state, late.state) == (TaskState.CANCELLED, TaskState.DEADLINE_EXCEEDED)
    world.run(first)
    assert not [event for event in world.events if isinstance(event, DependencyMet)]


def test_an_end_and_a_deadline_in_one_step(world: World):
    """The step ends the job by its deadline, and leaves its broken dependency alone."""
    first = world.submit(resources=NOTHING)
    job = world.submit_after(f"afterok:{first.id}", deadline_after_ms=1000)
    world.place(first)
    world.end(first, code=1)
    world.wait(1000)
    assert job.state is TaskState.DEADLINE_EXCEEDED
    world.settle()


def test_another_dependency_for_a_job_that_has_not_started(world: World):
    a, b = world.submit(resources=NOTHING), world.submit(resources=NOTHING)
    job = world.submit_after(f"afterok:{a.id}", on_broken_dependency=OnBrokenDependency.WAIT)
    world.run(a, code=1)
    changed = UpdateJob(job_id=job.id, actor="ada", dependency=parse_dependency(f"afterok:{b.id}"))
    world.do(changed)
    world.settle()
    assert waits(world, job)
    assert job.spec.dependency == parse_dependency(f"afterok:{b.id}")
    assert world.do(changed).events == []  # it is so already
    world.fail_over()
    world.run(world.state.jobs[b.id])
    assert not waits(world, job)
    started = world.state.jobs[job.id]
    assert world.refusal(UpdateJob(job_id=started.id, actor="ada", dependency=parse_dependency("singleton"))) == (
        "job_started"
    )


def test_a_dependency_may_be_taken_away(world: World):
    first = world.submit(resources=NOTHING)
    job = world.submit_after(f"after:{first.id}+1h,singleton", count=3)
    world.do(UpdateJob(job_id=job.id, actor="ada", dependency=Dependency(())))
    assert (job.eligible, job.waits, job.spec.dependency) == (3, None, None)


def test_no_jobs_wait_for_each_other_in_a_circle(world: World):
    first = world.submit(resources=NOTHING)
    second = world.submit_after(f"afterok:{first.id}")
    for later in (first.id, second.id):
        command = UpdateJob(job_id=first.id, actor="ada", dependency=parse_dependency(f"afterok:{later}"))
        assert world.refusal(command) == "unknown_dependency"


@pytest.mark.parametrize(
    "dependency",
    [
        Dependency((Condition(ConditionKind.AFTEROK),)),
        Dependency((Condition(ConditionKind.AFTEROK, 1, 5),)),
        Dependency((Condition(ConditionKind.SINGLETON, 1),)),
        Dependency((Condition(ConditionKind.AFTER, 1, -1),)),
        Dependency((Condition(ConditionKind.AFTERCORR, 1), Condition(ConditionKind.SINGLETON)), any_of=True),
        Dependency(()),
        Dependency((Condition(ConditionKind.AFTEROK, 1),) * 2),
    ],
)
def test_what_the_edge_would_have_refused_is_refused(world: World, dependency: Dependency):
    world.submit()
    spec = JobSpec(name="late", command=("true",), dependency=dependency)
    assert world.refusal(SubmitJob(submission_id="late", actor="ada", spec=spec)) == "invalid_spec"
