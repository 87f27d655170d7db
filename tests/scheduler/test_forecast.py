"""A forecast says what then happens: when each job starts and where, and what nobody can know."""

from __future__ import annotations

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.answers import Forecast
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind, NodeState
from hasched.model.wire import AttemptEnded, AttemptStarted, NodeInfo
from hasched.scheduler.forecast import HORIZON_MS, forecast
from hasched.scheduler.planner import Planner
from hasched.scheduler.rehearsal import SLICE_UNITS
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import (
    BATCH_VERSION,
    Batch,
    CancelJob,
    Command,
    RegisterNode,
    ReportAttempts,
    SetNodeState,
    SubmitJob,
    SuspendJob,
)
from hasched.statemachine.events import TasksScheduled
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.snapshot import records, restore
from hasched.statemachine.state import State

T0 = 1_700_000_000_000
MINUTE = 60_000


class Cluster:
    """A small cluster in virtual time, whose tasks run exactly as long as their time limit says."""

    def __init__(self) -> None:
        self.state = State()
        self.planner = Planner()
        self.now_ms = T0
        self.ends: list[tuple[int, int, int, int, int, str]] = []
        self.starts: dict[int, list[tuple[int, str]]] = {}

    def do(self, *commands: Command) -> Applied:
        applied = apply(self.state, self.state.index + 1, Batch(BATCH_VERSION, self.now_ms, list(commands)))
        assert applied.faults == []
        self.planner.observe(self.state, applied)
        return applied

    def node(self, node_id: str, cpu: int = 1) -> None:
        resources = Resources(cpu_milli=cpu * 1000)
        self.do(RegisterNode(node_id=node_id, info=NodeInfo(hostname=node_id, agent_version="1", resources=resources)))

    def submit(self, minutes: int = 0, cpu: int = 1, name: str = "job", **fields: object) -> Job:
        spec = JobSpec(
            name=name,
            command=("true",),
            resources=Resources(cpu_milli=cpu * 1000),
            timeout_ms=minutes * MINUTE,
            **fields,  # type: ignore[arg-type]
        )
        number = self.state.next_job_id
        (outcome,) = self.do(SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec)).outcomes
        assert isinstance(outcome, JobAccepted)
        return self.state.jobs[outcome.job_id]

    def place(self) -> None:
        """Start what may start, as the leader does."""
        while self.planner.ready:
            plan = self.planner.plan(self.state, SLICE_UNITS)
            if plan is None:
                continue
            applied = self.do(plan)
            self.planner.settle(self.state, plan)
            for event in applied.events:
                if isinstance(event, TasksScheduled):
                    self._start(event)

    def _start(self, event: TasksScheduled) -> None:
        job = self.state.jobs[event.job_id]
        for index, attempt in zip(event.indices, event.attempts, strict=True):
            self.starts.setdefault(job.id, []).append((self.now_ms, event.node_id))
            started = AttemptStarted(job.id, index, attempt, self.now_ms)
            self.do(ReportAttempts(node_id=event.node_id, reports=(started,)))
            end_ms = self.now_ms + job.spec.timeout_ms
            if job.spec.timeout_ms:
                heapq.heappush(self.ends, (end_ms, len(self.ends), job.id, index, attempt, event.node_id))

    def run_on(self) -> None:
        """Until nothing happens any more."""
        self.place()
        while self.ends:
            self.now_ms = self.ends[0][0]
            while self.ends and self.ends[0][0] == self.now_ms:
                _, _, job_id, index, attempt, node_id = heapq.heappop(self.ends)
                self.end(job_id, index, attempt, node_id)
            self.place()

    def end(self, job_id: int, index: int = 0, attempt: int = 1, node_id: str = "n1") -> None:
        ended = AttemptEnded(job_id, index, attempt, self.now_ms, self.now_ms, EndKind.EXITED)
        active = self.state.jobs[job_id].attempt_of(index)
        assert active is not None
        ended = AttemptEnded(job_id, index, attempt, active.started_ms, self.now_ms, EndKind.EXITED)
        self.do(ReportAttempts(node_id=node_id, reports=(ended,)))

    def foresee(self, horizon_ms: int = HORIZON_MS) -> Forecast:
        return forecast(restore(records(self.state)), self.now_ms, self.now_ms + horizon_ms)


jobs = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=40, deadline=None)
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
    assert (job.start_ms, job.starting, foreseen.endless) == (0, 0, 1)
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
