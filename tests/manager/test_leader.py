"""The leader's duties: they start with the role, end with it, survive what fails, and never call a node lost too early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from hasched.api.hub import AgentHub
from hasched.api.session import AgentSession
from hasched.manager.grace import GraceWatch, judge
from hasched.manager.leader import LeaderDuties
from hasched.manager.settings import LeaderSettings
from hasched.model.errors import NoLeader, OutcomeUnknown
from hasched.model.spec import Backoff, JobSpec, Resources, Retries
from hasched.model.states import EndKind, NodeState, TaskState
from hasched.model.wire import AttemptEnded, Heartbeat, NodeInfo, NodeUsage
from hasched.statemachine.commands import (
    PlacePlan,
    RegisterNode,
    ReportAttempts,
    SetNodeState,
    StepClock,
    SubmitJob,
    WatchNodes,
)
from hasched.statemachine.outcomes import Rejected
from tests.manager.local_replica import LocalReplica, until

SETTINGS = LeaderSettings()
HEALTHY, UNHEALTHY, DISCONNECTED = NodeState


class Clock:
    """Monotonic seconds and wall milliseconds that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ahead_ms = 0  # of the wall clock

    def __call__(self) -> float:
        return self.seconds

    def wall_ms(self) -> int:
        return int(self.seconds * 1000) + self.ahead_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replica(clock: Clock) -> LocalReplica:
    return LocalReplica(clock.wall_ms, clock)


@pytest.fixture
def hub(clock: Clock) -> AgentHub:
    return AgentHub(clock)


@pytest.fixture
async def duties(replica: LocalReplica, hub: AgentHub, clock: Clock) -> AsyncIterator[LeaderDuties]:
    duties = LeaderDuties(replica, hub, SETTINGS)
    duties.start()
    yield duties
    await duties.stop()


def connect(hub: AgentHub, node_id: str) -> AgentSession:
    """A stream on which the agent has been welcomed, and whose other end is not of interest."""
    session = AgentSession(web.WebSocketResponse(), None, node_id, "s", hub.clock())
    session.live = True
    hub.admit(session)
    return session


async def register(replica: LocalReplica, node_id: str = "n1", cpu: int = 4) -> None:
    info = NodeInfo(hostname=node_id, agent_version="1", resources=Resources(cpu_milli=cpu * 1000))
    await replica.propose(RegisterNode(node_id=node_id, info=info))


async def submit(replica: LocalReplica, count: int = 1, retries: Retries | None = None) -> int:
    number = replica.state.next_job_id
    spec = JobSpec(name="job", command=("true",), count=count, retries=retries or Retries())
    await replica.propose(SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec))
    return number


def proposed(replica: LocalReplica, kind: type) -> list[object]:
    return [command for command in replica.commands if isinstance(command, kind)]


# ── The role ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_follower_does_nothing(replica: LocalReplica, hub: AgentHub, duties: LeaderDuties) -> None:
    replica.lead(False)
    await register(replica)
    await submit(replica)
    connect(hub, "n1")
    for _ in range(10):
        await asyncio.sleep(0)
    assert not proposed(replica, PlacePlan)


async def test_a_new_leader_goes_on_where_the_last_one_stopped(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties
) -> None:
    replica.lead(True)
    await register(replica)
    job_id = await submit(replica, count=6)
    connect(hub, "n1")
    job = replica.state.jobs[job_id]
    await until(lambda: job.active == 4)
    replica.lead(False)
    ends = tuple(AttemptEnded(job_id, index, 1, 1, 2, EndKind.EXITED) for index in range(4))
    await replica.propose(ReportAttempts(node_id="n1", reports=ends))
    assert job.active == 0
    replica.lead(True)
    await until(lambda: job.active == 2)


async def test_an_idle_cluster_writes_nothing(replica: LocalReplica, hub: AgentHub, duties: LeaderDuties) -> None:
    replica.lead(True)
    await register(replica)
    connect(hub, "n1")
    job_id = await submit(replica)
    await until(lambda: replica.state.jobs[job_id].active == 1)
    index = replica.state.index
    for _ in range(50):
        await asyncio.sleep(0.002)
    assert replica.state.index == index


async def test_a_node_that_refuses_work_gets_none_until_it_takes_it_again(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties
) -> None:
    replica.lead(True)
    await register(replica)
    session = connect(hub, "n1")
    await until(lambda: hub._watchers)
    hub.take_heartbeat(session, Heartbeat(1, NodeUsage(), accepts=False))
    job = replica.state.jobs[await submit(replica)]
    hub.leave(session)
    session = connect(hub, "n1")
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert not job.active and not proposed(replica, PlacePlan)
    hub.take_heartbeat(session, Heartbeat(1, NodeUsage()))
    await until(lambda: job.active == 1)


# ── What fails ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "failure",
    [OutcomeUnknown("the leader changed"), NoLeader("a partition"), RuntimeError("a bug")],
    ids=["unknown", "no leader", "bug"],
)
async def test_scheduling_goes_on_after_a_plan_failed(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties, failure: Exception
) -> None:
    replica.lead(True)
    await register(replica)
    job_id = await submit(replica)
    replica.fail_next.append(failure)
    connect(hub, "n1")
    await until(lambda: replica.state.jobs[job_id].active == 1)
    assert not replica.fail_next


async def test_a_planner_that_fails_is_built_anew(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hasched.scheduler.planner import Planner

    replica.lead(True)
    connect(hub, "n1")
    observe, failures = Planner.observe, ["a bug"]

    def fail_once(*args: object) -> None:
        if failures:
            raise RuntimeError(failures.pop())
        observe(*args)  # type: ignore[arg-type]

    await asyncio.sleep(0)
    monkeypatch.setattr(Planner, "observe", fail_once)
    await register(replica)
    job_id = await submit(replica)
    await until(lambda: replica.state.jobs[job_id].active == 1)
    assert not failures


async def test_a_retry_starts_in_time_though_the_wall_clock_was_ahead_and_fell_back(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties, clock: Clock
) -> None:
    clock.ahead_ms = 3_600_000
    job_id = await fail_a_task(replica, hub)
    clock.ahead_ms = 0
    clock.seconds += 10
    await until(lambda: replica.state.jobs[job_id].active == 1)


async def test_a_clock_step_that_failed_is_proposed_again(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties, clock: Clock
) -> None:
    job_id = await fail_a_task(replica, hub)
    replica.fail_next.append(OutcomeUnknown("the leader changed"))
    clock.seconds += 10
    await until(lambda: replica.state.jobs[job_id].active == 1)


# ── The clock ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def fail_a_task(replica: LocalReplica, hub: AgentHub) -> int:
    """Run a task to its first failure, with another try in 10 s."""
    replica.lead(True)
    await register(replica)
    connect(hub, "n1")
    job_id = await submit(replica, retries=Retries(max=1, backoff=Backoff(initial_ms=10_000)))
    job = replica.state.jobs[job_id]
    await until(lambda: job.active == 1)
    end = AttemptEnded(job_id, 0, 1, 1, 2, EndKind.EXITED, 1)
    await replica.propose(ReportAttempts(node_id="n1", reports=(end,)))
    assert job.task_state(0) is TaskState.PENDING
    return job_id


async def test_a_retry_starts_when_its_backoff_is_over(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties, clock: Clock
) -> None:
    job_id = await fail_a_task(replica, hub)
    clock.seconds += 9.9
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert not proposed(replica, StepClock)
    clock.seconds += 0.1
    await until(lambda: replica.state.jobs[job_id].active == 1)
    assert len(proposed(replica, StepClock)) == 1


# ── The watch over nodes ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "silent_s", "connected", "verdict"),
    [
        pytest.param(HEALTHY, 0.5, True, None, id="a heartbeat came"),
        pytest.param(HEALTHY, 9.9, True, None, id="late, but connected"),
        pytest.param(HEALTHY, 2.9, False, None, id="reconnecting"),
        pytest.param(HEALTHY, 3.0, False, UNHEALTHY, id="not back after three heartbeats"),
        pytest.param(HEALTHY, 10.0, True, UNHEALTHY, id="silent on an open stream"),
        pytest.param(HEALTHY, 30.0, False, DISCONNECTED, id="silent beyond the grace"),
        pytest.param(UNHEALTHY, 29.9, False, None, id="within the grace"),
        pytest.param(UNHEALTHY, 30.0, True, DISCONNECTED, id="the grace is over"),
        pytest.param(UNHEALTHY, 0.5, True, HEALTHY, id="back"),
        pytest.param(UNHEALTHY, 0.5, False, None, id="heard, and gone again"),
        pytest.param(DISCONNECTED, 0.5, True, None, id="comes back by registering only"),
        pytest.param(DISCONNECTED, 99.0, False, None, id="stays away"),
    ],
)
def test_verdicts(state: NodeState, silent_s: float, connected: bool, verdict: NodeState | None) -> None:
    found = judge(state, int(silent_s * 1000), connected, SETTINGS)
    assert (found and found.state) == verdict


def test_the_lease_ends_before_the_grace() -> None:
    assert SETTINGS.lease_ms < SETTINGS.node_grace_ms


@pytest.fixture
async def watch(replica: LocalReplica, hub: AgentHub) -> GraceWatch:
    """The watch of a leader that has just taken over a cluster of three nodes."""
    replica.lead(True)
    for name in ("n1", "n2", "n3"):
        await register(replica, name)
    return GraceWatch(replica, hub, SETTINGS, replica.term)


def tick(watch: GraceWatch, clock: Clock, seconds: int) -> list[tuple[int, str, NodeState]]:
    """Let so many seconds pass, a look a second: (after how many, which node, its new state)."""
    found = []
    for second in range(1, seconds + 1):
        clock.seconds += 1
        found += [(second, command.node_id, command.state) for command in watch.tick()]
    return found


async def apply(replica: LocalReplica, commands: list[SetNodeState]) -> None:
    await replica.propose_many(commands)


async def test_a_new_leader_gives_everybody_a_full_grace(watch: GraceWatch, clock: Clock) -> None:
    found = tick(watch, clock, 30)
    assert min(second for second, _, state in found if state is DISCONNECTED) == 30
    assert {node for _, node, state in found if state is DISCONNECTED} == {"n1", "n2", "n3"}


async def test_a_node_that_talks_stays_healthy(watch: GraceWatch, clock: Clock, hub: AgentHub) -> None:
    session = connect(hub, "n1")
    for _ in range(100):
        hub.heard_from(session)
        assert "n1" not in [node for _, node, _ in tick(watch, clock, 1)]


async def test_a_manager_that_was_frozen_gives_everybody_a_fresh_grace(
    watch: GraceWatch, clock: Clock, hub: AgentHub
) -> None:
    session = connect(hub, "n1")
    clock.seconds += 3600
    assert watch.tick() == []
    assert session.closing is None
    assert DISCONNECTED not in [state for _, _, state in tick(watch, clock, 29)]
    assert DISCONNECTED in [state for _, _, state in tick(watch, clock, 1)]


async def test_a_silent_stream_is_cut(watch: GraceWatch, clock: Clock, hub: AgentHub) -> None:
    session = connect(hub, "n1")
    tick(watch, clock, 9)
    assert session.closing is None
    assert (1, "n1", UNHEALTHY) in tick(watch, clock, 1)
    assert session.closing == (1001, "no heartbeat")


async def test_the_verdict_of_a_deposed_leader_does_not_cut_short_the_grace_of_its_successor(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties, clock: Clock
) -> None:
    replica.lead(True)
    await register(replica)
    await until(lambda: proposed(replica, WatchNodes))
    watch = GraceWatch(replica, hub, SETTINGS, replica.term)
    clock.seconds += 1
    watch.tick()
    for _ in range(29):
        clock.seconds += 1
        late = watch.tick()
    assert [command.state for command in late] == [DISCONNECTED]
    replica.lead(False)
    replica.lead(True)  # a new term
    await until(lambda: len(proposed(replica, WatchNodes)) == 2)
    (outcome,) = await replica.propose_many(late)
    assert isinstance(outcome, Rejected) and outcome.code == "node_changed"
    assert replica.state.nodes["n1"].state is not DISCONNECTED


async def test_a_lost_nodes_tasks_run_again_elsewhere(
    replica: LocalReplica, hub: AgentHub, duties: LeaderDuties, clock: Clock
) -> None:
    replica.lead(True)
    watch = GraceWatch(replica, hub, SETTINGS, replica.term)
    await register(replica, "n1")
    lost = connect(hub, "n1")
    job_id = await submit(replica)
    job = replica.state.jobs[job_id]
    await until(lambda: job.active == 1)
    hub.leave(lost)
    await register(replica, "n2")
    other = connect(hub, "n2")
    for _ in range(30):
        clock.seconds += 1
        hub.heard_from(other)
        await apply(replica, watch.tick())
    assert replica.state.nodes["n1"].state is DISCONNECTED
    await until(lambda: job.active == 1)
    attempt = job.attempt_of(0)
    assert attempt is not None
    assert (attempt.attempt, attempt.node_id) == (2, "n2")
