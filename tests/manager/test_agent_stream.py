"""The stream between the leader and its agents: over real TLS, in the protocol's own words."""

from __future__ import annotations

import aiohttp
import msgspec
import pytest

from hasched.model import wire
from hasched.model.errors import OutcomeUnknown, Overloaded
from hasched.model.spec import PlacementRules, Resources
from hasched.model.states import EndKind, TaskState
from hasched.model.wire import (
    Assign,
    AttemptEnded,
    AttemptKey,
    AttemptStarted,
    Freeze,
    FromAgent,
    Heartbeat,
    HeartbeatAck,
    Hello,
    NodeUsage,
    OtherCluster,
    Redirect,
    Reports,
    ReportsAck,
    Stop,
    Usage,
    Welcome,
)
from hasched.statemachine.commands import (
    CancelJob,
    RegisterNode,
    ReportAttempts,
    ResumeJob,
    SuspendJob,
    WatchNodes,
    encode_command,
)
from tests.manager.local_replica import ORIGIN, until
from tests.manager.stories import ended, replica_of, state_of, submit, written
from tests.manager.stream import INFO, Manager

# ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_hello_registers_the_node_and_is_welcomed(manager: Manager) -> None:
    async with manager.connect() as agent:
        await agent.hello()
        assert await agent.expect(Welcome) == Welcome("m1", 1, heartbeat_ms=1000, lease_ms=20_000, origin=ORIGIN)
        assert manager.replica.state.nodes["n1"].info == INFO
        assert manager.hub.connected("n1")
    await until(lambda: not manager.hub.connected("n1"))


async def test_a_node_that_is_known_as_it_is_writes_nothing_when_it_comes_back(manager: Manager) -> None:
    async with manager.agent():
        pass
    async with manager.agent():
        assert written(manager) == [WatchNodes, RegisterNode]


async def test_a_follower_sends_agents_to_the_leader(manager: Manager) -> None:
    replica_of(manager).lead(False)
    async with manager.connect() as agent:
        assert await agent.expect(Redirect) == Redirect("m2", "https://m2.example:7411")


async def test_a_leader_that_is_deposed_sends_its_agents_away(manager: Manager) -> None:
    async with manager.agent() as agent:
        replica_of(manager).lead(False)
        assert await agent.closed() == (1013, "this manager doesn't lead any more")
    await until(lambda: not manager.hub.sessions)


async def test_a_hello_that_meets_a_deposed_leader_is_redirected(manager: Manager) -> None:
    async with manager.connect() as agent:
        await until(lambda: manager.hub.leading)
        replica_of(manager).is_leader = False  # deposed, and not told yet
        await agent.hello()
        assert isinstance(await agent.expect(Redirect), Redirect)


async def test_without_an_agents_certificate_there_is_no_stream(manager: Manager) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with manager.connect(None):
            pass
    assert refusal.value.status == 403


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(Hello(1, "n2", "s", INFO, ()), "the certificate is n1's, the hello another node's", id="forged"),
        pytest.param(Hello(9, "n1", "s", INFO, ()), "this manager speaks protocol 1, the agent 9", id="version"),
        pytest.param(Heartbeat(1, NodeUsage()), "the first frame is a hello and nothing else", id="no hello"),
    ],
)
async def test_a_stream_that_opens_wrong_is_refused(manager: Manager, frame: Hello | Heartbeat, reason: str) -> None:
    async with manager.connect() as agent:
        await agent.send(frame)
        assert await agent.closed() == (1008, reason)
    assert not manager.replica.state.nodes


async def test_a_hello_may_take_several_frames(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ATTEMPTS_A_FRAME", 2)
    unknown = tuple(AttemptKey(77, index, 1) for index in range(5))
    async with manager.agent(attempts=unknown) as agent:
        assert (await agent.expect(Stop)).attempts == unknown


def test_a_hello_of_very_many_attempts_fits_its_frames() -> None:
    attempts = tuple(AttemptKey(2**40, index, 2**30) for index in range(2 * wire.ATTEMPTS_A_FRAME + 1))
    frames = list(wire.hello_frames(Hello(1, "n1", "s", INFO, attempts)))
    assert len(frames) == 3 and max(map(len, frames)) < wire.MAX_FRAME_BYTES // 2


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        pytest.param([Hello(1, "n1", "s", INFO, (), following=10**6)], "a hello has at most 64 frames", id="too long"),
        pytest.param([Hello(1, "n1", "s", INFO, (), following=-1)], "a hello has at most 64 frames", id="negative"),
        pytest.param(
            [Hello(1, "n1", "s", INFO, (), following=1), Heartbeat(1, NodeUsage())],
            "the rest of the hello follows it",
            id="something else",
        ),
    ],
)
async def test_a_hello_that_goes_on_wrong_is_refused(manager: Manager, frames: list[FromAgent], reason: str) -> None:
    async with manager.connect() as agent:
        for frame in frames:
            await agent.send(frame)
        assert await agent.closed() == (1008, reason)


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x91\x92\xa3foo\x01", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff"])
async def test_a_malformed_frame_closes_the_stream(manager: Manager, frame: bytes) -> None:
    async with manager.agent() as agent:
        await agent.socket.send_bytes(frame)
        code, reason = await agent.closed()
        assert code == 1008
        assert reason.startswith("malformed frame")


async def test_a_second_hello_or_a_text_frame_closes_the_stream(manager: Manager) -> None:
    async with manager.agent() as agent:
        await agent.hello()
        assert await agent.closed() == (1008, "a second hello")
    async with manager.agent() as agent:
        await agent.socket.send_str("hello")
        assert await agent.closed() == (1008, "frames are binary")


async def test_a_newer_stream_of_a_node_replaces_the_older(manager: Manager) -> None:
    async with manager.agent() as older, manager.agent() as newer:
        assert await older.closed() == (1008, "replaced by a newer stream of the same node")
        await newer.send(Heartbeat(1, NodeUsage()))
        await newer.expect(HeartbeatAck)
        assert manager.hub.connected("n1")


async def test_two_machines_with_one_certificate_do_not_take_the_stream_from_each_other(manager: Manager) -> None:
    other = msgspec.structs.replace(INFO, hostname="twin", boot_id="another")
    async with manager.agent() as first:
        async with manager.connect() as second:
            await second.hello(info=other)
            reason = "machine n1 is connected as n1; each needs a certificate of its own"
            assert await second.closed() == (1013, reason)
        await first.send(Heartbeat(1, NodeUsage()))
        await first.expect(HeartbeatAck)
        manager.hub.sessions["n1"].last_seen -= 3  # silent since three heartbeats
        async with manager.connect() as second:
            await second.hello(info=other)
            await second.expect(Welcome)
            assert (await first.closed())[0] == 1008


async def test_an_agent_of_another_cluster_is_told_so_and_leaves_no_trace(manager: Manager) -> None:
    """It may have been given wrong addresses; or this may be a second cluster of the same name."""
    async with manager.connect() as agent:
        await agent.send(Hello(1, "n1", "s", INFO, (AttemptKey(7, 0, 1),), origin="another"))
        assert await agent.expect(OtherCluster) == OtherCluster(ORIGIN)
        assert await agent.closed() == (1008, "this is another cluster")
    assert not manager.replica.state.nodes
    assert manager.hub.last_seen("n1") is None
    async with manager.connect() as agent:
        await agent.send(Hello(1, "n1", "s", INFO, (), origin=ORIGIN))
        await agent.expect(Welcome)


async def test_a_leader_that_can_not_say_yet_which_cluster_it_leads_takes_no_agent(manager: Manager) -> None:
    """An agent that has met no cluster so far would take it without knowing it again."""
    manager.replica.state.origin = ""
    async with manager.connect() as agent:
        await agent.hello()
        assert await agent.closed() == (1013, "the cluster has no origin yet")
    assert not manager.hub.sessions


async def test_an_inventory_that_can_not_be_is_refused(manager: Manager) -> None:
    async with manager.connect() as agent:
        await agent.hello(info=msgspec.structs.replace(INFO, resources=Resources(cpu_milli=-1)))
        code, reason = await agent.closed()
        assert (code, "impossible" in reason) == (1008, True)


# ── Work ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_goes_down_and_its_end_comes_up(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager, count=2)
        (assignment,) = (await agent.expect(Assign)).assignments
        assert assignment.spec == manager.replica.state.jobs[job_id].spec
        assert assignment.tasks == ((0, 1), (1, 1))
        await agent.send(Reports(1, (AttemptStarted(job_id, 0, 1, 1), ended(job_id, 1))))
        assert await agent.expect(ReportsAck) == ReportsAck(1)
        assert [state_of(manager, job_id, index) for index in (0, 1)] == [TaskState.RUNNING, TaskState.SUCCEEDED]


async def test_a_spec_is_sent_once_per_session(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager, count=9)
        first = (await agent.expect(Assign)).assignments
        await agent.send(Reports(1, (ended(job_id, 0),)))
        await agent.expect(ReportsAck)
        later = (await agent.expect(Assign)).assignments
    assert [assignment.spec is None for assignment in first + later] == [False, True]
    async with manager.agent() as agent:
        again = (await agent.expect(Assign)).assignments
        assert [assignment.spec is None for assignment in again] == [False]


async def test_an_agent_is_told_which_alternative_a_task_was_given(manager: Manager) -> None:
    first, second = Resources(gpus=9), Resources(cpu_milli=500)
    rules = PlacementRules(any_of=(first, second))
    async with manager.agent() as agent:
        job_id = await submit(manager, count=2, resources=first, placement=rules)
        (assignment,) = (await agent.expect(Assign)).assignments
        assert (assignment.tasks, assignment.choices) == (((0, 1), (1, 1)), ((0, 1), (1, 1)))
    async with manager.agent() as agent:
        (assignment,) = (await agent.expect(Assign)).assignments
        assert assignment.choices == ((0, 1), (1, 1))
    assert manager.replica.state.jobs[job_id].request_of(1) == second


async def test_jobs_planned_together_travel_in_one_message(manager: Manager) -> None:
    job_ids = [await submit(manager) for _ in range(3)]
    async with manager.agent() as agent:
        assert [assignment.job_id for assignment in (await agent.expect(Assign)).assignments] == job_ids


async def test_reports_are_acknowledged_by_number_and_refused_by_attempt(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager)
        await agent.expect(Assign)
        await agent.send(Reports(7, (ended(job_id, 0, attempt=2), ended(99, 0))), Reports(8, (ended(job_id, 0),)))
        assert await agent.expect(ReportsAck) == ReportsAck(7, (AttemptKey(job_id, 0, 2), AttemptKey(99, 0, 1)))
        assert await agent.expect(ReportsAck) == ReportsAck(8)


async def test_a_large_batch_of_reports_is_committed_in_parts(manager: Manager) -> None:
    async with manager.agent() as agent:
        await agent.send(Reports(1, tuple(ended(99, index) for index in range(1300))))
        assert len((await agent.expect(ReportsAck)).refused) == 1300
    reports = [command for command in replica_of(manager).commands if isinstance(command, ReportAttempts)]
    assert [len(command.reports) for command in reports] == [512, 512, 276]


async def test_an_output_beyond_the_cap_closes_the_stream(manager: Manager) -> None:
    async with manager.agent() as agent:
        large = msgspec.structs.replace(ended(1, 0), output=b"x" * 20_000)
        await agent.send(Reports(1, (large,)))
        assert await agent.closed() == (1008, "an output is too large")


async def test_reports_whose_outcome_is_not_known_come_again_on_the_next_stream(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager)
        await agent.expect(Assign)
        replica_of(manager).fail_next.append(OutcomeUnknown("the leader changed"))
        await agent.send(Reports(1, (ended(job_id, 0),)))
        assert await agent.closed() == (1013, "the leader changed")
    async with manager.agent(attempts=[AttemptKey(job_id, 0, 1)]) as agent:
        await agent.expect(Freeze)
        await agent.send(Reports(1, (ended(job_id, 0),)))
        assert await agent.expect(ReportsAck) == ReportsAck(1)


async def test_reports_wait_where_the_log_is_too_busy_for_them(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager)
        await agent.expect(Assign)
        replica_of(manager).fail_next += [Overloaded("busy")] * 2
        await agent.send(Reports(1, (ended(job_id, 0),)))
        assert await agent.expect(ReportsAck) == ReportsAck(1)


async def test_reports_that_meet_a_bug_end_the_stream(manager: Manager) -> None:
    async with manager.agent() as agent:
        replica_of(manager).fail_next.append(RuntimeError("a bug"))
        await agent.send(Reports(1, (ended(99, 0),)))
        assert await agent.closed() == (1011, "the manager failed; say hello again")


async def test_a_batch_is_split_by_the_bytes_of_its_reasons(manager: Manager) -> None:
    async with manager.agent() as agent:
        wordy = msgspec.structs.replace(ended(99, 0), reason="…" * 1000)  # 3 bytes each
        await agent.send(Reports(1, (wordy,) * 400))
        await agent.expect(ReportsAck)
    reports = [command for command in replica_of(manager).commands if isinstance(command, ReportAttempts)]
    assert max(len(encode_command(command)) for command in reports) < 300_000


async def test_a_batch_is_split_into_commands_that_the_log_takes(manager: Manager) -> None:
    """Else the stream would be closed for them, and opened again, for ever. Found by seed 1303 of the simulation."""
    replica_of(manager).max_command_bytes = 2000
    late = msgspec.structs.replace(
        ended(2**50, 2**19, 1000), started_ms=2**50, ended_ms=2**50, usage=Usage(2**50, 2**50)
    )
    reports = [late] * 40 + [msgspec.structs.replace(late, reason="…" * 300, output=b"x" * 200)] * 3
    async with manager.agent() as agent:
        await agent.send(Reports(1, (*reports, *[AttemptStarted(2**50, 2**19, 1000, 2**50)] * 40)))
        await agent.expect(ReportsAck)
    commands = [command for command in replica_of(manager).commands if isinstance(command, ReportAttempts)]
    assert sum(len(command.reports) for command in commands) == 83
    assert max(len(encode_command(command)) for command in commands) <= 2000


async def test_cancelling_stops_what_runs(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager, count=2)
        await agent.expect(Assign)
        await manager.replica.propose(CancelJob(job_id=job_id, actor="ada", reason="no need"))
        keys = (AttemptKey(job_id, 0, 1), AttemptKey(job_id, 1, 1))
        assert await agent.expect(Stop) == Stop(keys, "no need")
        stopped = [AttemptEnded(job_id, index, 1, 1, 2, EndKind.STOPPED) for index in (0, 1)]
        await agent.send(Reports(1, tuple(stopped)))
        await agent.expect(ReportsAck)
        assert state_of(manager, job_id) is TaskState.CANCELLED


async def test_suspending_freezes_and_resuming_thaws(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager)
        await agent.expect(Assign)
        await manager.replica.propose(SuspendJob(job_id=job_id, actor="ada"))
        assert await agent.expect(Freeze) == Freeze((AttemptKey(job_id, 0, 1),), True)
        await manager.replica.propose(ResumeJob(job_id=job_id, actor="ada"))
        assert await agent.expect(Freeze) == Freeze((AttemptKey(job_id, 0, 1),), False)


# ── Heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_heartbeat_is_acknowledged_and_its_usage_kept(manager: Manager) -> None:
    async with manager.agent() as agent:
        usage = NodeUsage(cpu_milli=1500, memory_bytes=10)
        await agent.send(Heartbeat(3, usage), Heartbeat(4, usage))
        assert [(await agent.expect(HeartbeatAck)).number for _ in range(2)] == [3, 4]
        assert manager.hub.usage("n1") == usage
    assert written(manager) == [WatchNodes, RegisterNode]


async def test_an_acknowledgement_passes_the_work_that_waits(manager: Manager) -> None:
    async with manager.agent() as agent:
        session = manager.hub.sessions["n1"]
        for _ in range(40):  # more than a socket holds, so that most of it waits
            session.send(Stop((AttemptKey(1, 0, 1),), "x" * 1_000_000))
        await agent.send(Heartbeat(1, NodeUsage()))
        before = 0
        while isinstance(await agent.expect((Stop, HeartbeatAck)), Stop):
            before += 1
        assert before < 40


async def test_no_lease_is_renewed_until_leadership_is_confirmed(manager: Manager) -> None:
    async with manager.agent() as agent:
        replica_of(manager).held.clear()
        await agent.send(Heartbeat(1, NodeUsage()))
        await until(lambda: manager.hub.usage("n1") is not None)
        replica_of(manager).is_leader = False  # deposed, and not told yet
        replica_of(manager).held.set()
        await until(lambda: not manager.streams._acknowledging)
        replica_of(manager).is_leader = True
        await agent.send(Heartbeat(2, NodeUsage()))
        assert await agent.expect(HeartbeatAck) == HeartbeatAck(2)


# ── Agents that don't read ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_agent_that_does_not_read_is_cut_off(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasched.api.session.MAX_QUEUED_MESSAGES", 100)
    async with manager.agent() as agent:
        session = manager.hub.sessions["n1"]
        for _ in range(200):
            session.send(Stop((AttemptKey(1, 0, 1),), "x" * 100))
        assert await agent.closed() == (1008, "too slow: the queue to this agent is full")


async def test_a_frozen_agent_is_cut_off_though_nothing_can_be_sent_to_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasched.api.session.SEND_TIMEOUT_S", 0.1)
    async with manager.agent() as agent:
        transport = agent.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()  # type: ignore[union-attr]
        session = manager.hub.sessions["n1"]
        for _ in range(30):
            session.send(Stop((AttemptKey(1, 0, 1),), "x" * 1_000_000))
        await until(lambda: not manager.hub.connected("n1"))
        assert session.closing == (1008, "too slow: a frame could not be sent in time")
        transport.resume_reading()  # type: ignore[union-attr]
