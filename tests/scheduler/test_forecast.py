"""A forecast says what then happens: when each job starts and where, and what nobody can know."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hasched.model.dependency import parse_dependency
from hasched.model.states import NodeState
from hasched.statemachine.commands import CancelJob, SetNodeState, SuspendJob
from hasched.statemachine.snapshot import records
from tests.scheduler.cluster import MINUTE, T0, Cluster

jobs = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=40, deadline=None)
@example([4], [(1, 1, 1, 0, 0)] * 3 + [(2, 1, 2, 0, 0), (1, 4, 1, 0, 0)], [(1, 4, 1, 1, 0)])
@example([1, 2, 2], [(1, 1, 1, 0, 0)] * 2 + [(1, 3, 1, 0, 0), (1, 2, 3, 0, 0)], [(1, 1, 1, 0, 0), (1, 1, 4, 1, 0)])
@example([1, 2, 2], [(1, 1, 1, 0, 0)] * 2 + [(1, 3, 1, 0, 0), (1, 2, 2, 0, 0)], [(1, 1, 1, 0, 0), (1, 1, 4, 1, 0)])
@given(
    nodes=st.lists(st.integers(1, 4), min_size=1, max_size=4), before=st.lists(jobs, max_size=5), after=st.lists(jobs)
)
def test_a_forecast_is_what_then_happens(
    nodes: list[int], before: list[tuple[int, int, int, int, int]], after: list[tuple[int, int, int, int, int]]
) -> None:
    cluster = Cluster()
    for number, cpu in enumerate(nodes):
        cluster.node(f"n{number}", cpu)
    for batch in (before, after):
        cluster.place()  # some run already when the forecast is made
        cluster.now_ms += 1000
        for minutes, cpu, count, priority, max_running in batch:
            cluster.submit(minutes, cpu, count=count, priority=priority, max_running=max_running)
    foreseen = cluster.foresee()
    cluster.change_leader()
    cluster.starts.clear()
    cluster.run_on()
    for job in foreseen.jobs:
        starts = cluster.starts.get(job.job_id, [])
        assert job.starting == len(starts)
        if starts:
            first_ms = starts[0][0]
            assert (job.start_ms, job.last_start_ms) == (
                first_ms,
                starts[-1][0] if job.starting == job.waiting else 0,
            )
            assert job.nodes == list(dict.fromkeys(node for at_ms, node in starts if at_ms == first_ms))
        assert (job.reason is None) == (job.starting == job.waiting)


def test_a_job_starts_when_the_one_before_it_reaches_its_time_limit() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit(10)
    cluster.place()
    waiting = cluster.submit(5, count=2)
    (job,) = cluster.foresee().jobs
    assert (job.job_id, job.start_ms, job.nodes) == (waiting.id, T0 + 10 * MINUTE, ["n1"])
    assert (job.last_start_ms, job.end_ms, job.basis) == (T0 + 15 * MINUTE, T0 + 20 * MINUTE, "time_limit")


def test_a_job_that_waits_for_another_starts_at_its_end_and_never_after_a_failure() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=4)
    first = cluster.submit(10)
    cluster.place()
    after = cluster.submit(5, dependency=parse_dependency(f"afterok:{first.id}"))
    never = cluster.submit(5, dependency=parse_dependency(f"afternotok:{first.id}"))
    soon, late = cluster.foresee().jobs
    assert (soon.job_id, soon.start_ms, soon.reason) == (after.id, T0 + 10 * MINUTE, None)
    assert (late.job_id, late.start_ms) == (never.id, 0)
    assert late.reason is not None and late.reason.code == "dependency"
    assert f"afternotok:{first.id}" in late.reason.text


def test_what_tasks_of_a_name_took_is_the_better_estimate() -> None:
    cluster = Cluster()
    cluster.node("n1")
    for minutes in (2, 3, 9):
        job = cluster.submit(60, name="train")
        cluster.place()
        cluster.now_ms += minutes * MINUTE
        cluster.end(job.id)
    cluster.submit(60, name="train")
    cluster.place()
    cluster.submit(60, name="train")
    (waiting,) = cluster.foresee().jobs
    assert (waiting.start_ms, waiting.basis) == (cluster.now_ms + 3 * MINUTE, "history")


def test_a_task_that_has_outlived_its_history_is_taken_to_run_to_its_limit() -> None:
    cluster = Cluster()
    cluster.node("n1")
    first = cluster.submit(60, name="train")
    cluster.place()
    cluster.now_ms += MINUTE
    cluster.end(first.id)
    cluster.submit(60, name="train")
    cluster.place()
    started_ms = cluster.now_ms
    cluster.now_ms += 30 * MINUTE
    cluster.submit(60, name="train")
    (waiting,) = cluster.foresee().jobs
    assert waiting.start_ms == started_ms + 60 * MINUTE


def test_what_nobody_knows_is_said() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit()
    cluster.place()
    cluster.submit()
    foreseen = cluster.foresee()
    (job,) = foreseen.jobs
    assert (job.start_ms, job.starting, job.endless, foreseen.endless) == (0, 0, 1, 1)
    assert job.reason is not None and job.reason.code == "insufficient_resources"
    assert "1 running tasks have neither a time limit nor a history" in job.reason.text


def test_nothing_is_foreseen_beyond_the_horizon() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit(10)
    cluster.place()
    cluster.submit(10)
    assert [job.starting for job in cluster.foresee(9 * MINUTE).jobs] == [0]
    assert [job.starting for job in cluster.foresee(10 * MINUTE).jobs] == [1]


def test_an_attempt_that_is_being_stopped_ends_with_its_grace() -> None:
    cluster = Cluster()
    cluster.node("n1")
    stopped = cluster.submit(60, kill_grace_ms=4000)
    cluster.place()
    cluster.do(CancelJob(job_id=stopped.id, actor="ada"))
    cluster.submit(60)
    (job,) = cluster.foresee().jobs
    assert job.start_ms == T0 + 4000


def test_a_suspended_job_and_an_unhealthy_node_stay_as_they_are() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.node("n2", cpu=4)
    cluster.do(SetNodeState(node_id="n2", state=NodeState.UNHEALTHY, reason="silent"))
    suspended = cluster.submit(1)
    cluster.do(SuspendJob(job_id=suspended.id, actor="ada"))
    large = cluster.submit(1, cpu=4)
    reasons = {job.job_id: job.reason.code if job.reason else "" for job in cluster.foresee().jobs}
    assert reasons == {suspended.id: "suspended", large.id: "unsatisfiable"}


def test_the_live_state_is_left_alone() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit(1)
    before = b"".join(records(cluster.state))
    cluster.foresee()
    assert b"".join(records(cluster.state)) == before


def test_an_elastic_gang_has_started_with_as_many_tasks_as_it_needs() -> None:
    cluster = Cluster()
    cluster.node("n1", 4)
    cluster.submit(10, 2, count=2)
    cluster.place()
    gang = cluster.submit(5, count=9, gang=True, min_count=3)
    after = cluster.submit(5, 4)
    first, second = cluster.foresee().jobs
    assert (first.job_id, first.waiting, first.starting, first.reason) == (gang.id, 9, 4, None)
    assert (first.start_ms, first.last_start_ms) == (T0 + 10 * MINUTE, T0 + 10 * MINUTE)
    assert (second.job_id, second.start_ms) == (after.id, T0 + 15 * MINUTE)


def test_a_job_that_waits_until_its_deadline_never_starts() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit(60)
    cluster.place()
    late = cluster.submit(5, deadline_ms=T0 + 10 * MINUTE)
    (job,) = cluster.foresee().jobs
    assert (job.job_id, job.starting) == (late.id, 0)
    assert job.reason is not None and job.reason.code == "deadline"
    assert "not before its deadline, 2023-11-14T22:23:20Z" in job.reason.text
