"""An agent that comes back is told the difference between what it has and what it should have."""

from __future__ import annotations

import msgspec

from hasched.model.spec import MAX_INPUT_BYTES, JobSpec, Resources
from hasched.model.states import EndKind, NodeState, TaskState
from hasched.model.wire import (
    Assign,
    AttemptEnded,
    AttemptKey,
    AttemptStarted,
    Freeze,
    NodeInfo,
    Reports,
    ReportsAck,
    Stop,
    Welcome,
)
from hasched.statemachine.commands import (
    CancelJob,
    DeleteJob,
    Placement,
    PlacePlan,
    RegisterNode,
    ReportAttempts,
    SetNodeState,
    SubmitJob,
    SuspendJob,
    encode_command,
)
from tests.manager.local_replica import until
from tests.manager.stories import ended, replica_of, state_of, submit, written
from tests.manager.stream import INFO, Manager


async def test_a_hello_is_answered_with_the_difference(manager: Manager) -> None:
    async with manager.agent() as agent:
        running, lost, cancelled, suspended, over = [await submit(manager) for _ in range(3)] + [
            await submit(manager, resources=Resources(cpu_milli=500)) for _ in range(2)
        ]
        await until(lambda: len(manager.replica.state.nodes["n1"].attempts) == 5)
        await agent.send(Reports(1, (ended(over, 0),)))
        await until(lambda: state_of(manager, over) is TaskState.SUCCEEDED)
    await manager.replica.propose(CancelJob(job_id=cancelled, actor="ada"))
    await manager.replica.propose(SuspendJob(job_id=suspended, actor="ada"))
    known = [AttemptKey(job_id, 0, 1) for job_id in (running, cancelled, suspended, over)]
    async with manager.agent(attempts=known) as agent:
        assert await agent.expect(Stop) == Stop((AttemptKey(over, 0, 1),), "it doesn't count any more")
        (assignment,) = (await agent.expect(Assign)).assignments
        assert (assignment.job_id, assignment.tasks) == (lost, ((0, 1),))
        assert await agent.expect(Stop) == Stop((AttemptKey(cancelled, 0, 1),), "cancelled")
        assert await agent.expect(Freeze) == Freeze((AttemptKey(suspended, 0, 1),), True)
        assert await agent.expect(Freeze) == Freeze((AttemptKey(running, 0, 1),), False)


FORGOTTEN = "it knows nothing of 1 attempts that may still run here; it is taken in once they are given up"


async def test_an_agent_that_lost_its_disk_waits_until_what_its_predecessor_may_have_started_is_given_up(
    manager: Manager,
) -> None:
    def info(table_id: str) -> NodeInfo:
        return msgspec.structs.replace(INFO, table_id=table_id)

    async with manager.connect() as agent:
        await agent.hello(info=info("old"))
        await agent.expect(Welcome)
        job_id = await submit(manager)
        await agent.expect(Assign)  # and it may have been started, though nobody has said so
    heard = manager.hub.last_seen("n1")
    async with manager.connect() as agent:
        await agent.hello(info=info("new"))
        assert await agent.closed() == (1013, FORGOTTEN)
    assert manager.hub.last_seen("n1") == heard, "the grace of the one before goes on"
    assert not manager.hub.connected("n1")
    await manager.replica.propose(SetNodeState(node_id="n1", state=NodeState.DISCONNECTED, reason="silent"))
    async with manager.connect() as agent:
        await agent.hello(info=info("new"))
        await agent.expect(Welcome)
        assert (await agent.expect(Assign)).assignments[0].tasks == ((0, 2),)
    assert written(manager).count(RegisterNode) == 2
    assert job_id == 1


async def test_an_agent_that_lost_its_table_and_has_its_supervisor_goes_on(manager: Manager) -> None:
    async with manager.connect() as agent:
        await agent.hello(info=msgspec.structs.replace(INFO, table_id="old"))
        await agent.expect(Welcome)
        job_id = await submit(manager)
        await agent.expect(Assign)
    async with manager.connect() as agent:
        await agent.hello([AttemptKey(job_id, 0, 1)], info=msgspec.structs.replace(INFO, table_id="new"))
        await agent.expect(Welcome)
        await agent.expect(Freeze)
        await agent.send(Reports(1, (ended(job_id, 0),)))
        assert await agent.expect(ReportsAck) == ReportsAck(1)


async def test_an_agent_that_lost_its_table_and_knows_very_much_is_registered_by_a_small_command(
    manager: Manager,
) -> None:
    """A command that no log entry takes would keep it away for ever."""
    async with manager.connect() as agent:
        await agent.hello(info=msgspec.structs.replace(INFO, table_id="old"))
        await agent.expect(Welcome)
        job_id = await submit(manager)
        await agent.expect(Assign)
    known = [AttemptKey(job_id, 0, 1), *(AttemptKey(2**40, index, 1) for index in range(50_000))]
    async with manager.connect() as agent:
        await agent.hello(known, info=msgspec.structs.replace(INFO, table_id="new"))
        await agent.expect(Welcome)
    registered = [command for command in replica_of(manager).commands if isinstance(command, RegisterNode)]
    assert len(registered) == 2
    assert max(len(encode_command(command)) for command in registered) < 1000


async def test_a_deposed_leader_that_knows_less_does_not_let_in_who_lost_its_disk(manager: Manager) -> None:
    """What it doesn't know of, the log does."""
    async with manager.connect() as agent:
        await agent.hello(info=msgspec.structs.replace(INFO, table_id="old"))
        await agent.expect(Welcome)
    replica = replica_of(manager)
    replica.held.clear()
    async with manager.connect() as agent:
        await agent.hello(info=msgspec.structs.replace(INFO, table_id="new"))
        await until(lambda: manager.hub.connected("n1"))
        spec = JobSpec(name="job", command=("true",))
        replica.commit(SubmitJob(submission_id="s1", actor="ada", spec=spec))  # by the leader that is
        replica.commit(PlacePlan(placements=(Placement(1, "n1", (0,)),)))
        replica.held.set()
        assert (await agent.closed())[0] == 1013
    assert replica.state.nodes["n1"].info.table_id == "old"


async def test_what_was_seen_to_run_is_not_started_again_whatever_its_agent_says(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager)
        await agent.expect(Assign)
        await agent.send(Reports(1, (AttemptStarted(job_id, 0, 1, 1),)))
        await agent.expect(ReportsAck)
    async with manager.connect() as agent:
        await agent.hello()
        assert await agent.closed() == (1013, FORGOTTEN)


async def test_what_was_seen_to_run_only_after_the_hello_is_not_started_again_either(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager)
        await agent.expect(Assign)
    replica = replica_of(manager)
    replica.held.clear()
    async with manager.connect() as agent:
        await agent.hello()
        await until(lambda: manager.hub.connected("n1"))
        replica.commit(ReportAttempts(node_id="n1", reports=(AttemptStarted(job_id, 0, 1, 1),)))  # it was on its way
        replica.held.set()
        assert await agent.closed() == (1013, FORGOTTEN)


async def test_what_a_node_gives_back_for_want_of_gpus_goes_elsewhere(manager: Manager) -> None:
    def info(gpus: int) -> NodeInfo:
        return msgspec.structs.replace(INFO, resources=Resources(cpu_milli=4000, gpus=gpus))

    async with manager.connect() as agent:
        await agent.hello(info=info(2))
        await agent.expect(Welcome)
        job_id = await submit(manager, resources=Resources(gpus=2))
        await agent.expect(Assign)
    async with manager.connect() as agent:  # started again, and one GPU is gone
        await agent.hello(info=info(1))
        await agent.expect(Welcome)
        await agent.expect(Assign)
        await agent.send(Reports(1, (AttemptEnded(job_id, 0, 1, 0, 2, EndKind.LOST, reason="too few GPUs"),)))
        await agent.expect(ReportsAck)
        assert state_of(manager, job_id) is TaskState.PENDING
        async with manager.connect("n2") as other:
            await other.hello(info=info(2))
            await other.expect(Welcome)
            assert (await other.expect(Assign)).assignments[0].tasks == ((0, 2),)


async def test_a_node_gets_all_of_its_work_however_large_the_inputs_are(manager: Manager) -> None:
    async with manager.agent():
        pass
    data, one = b"x" * MAX_INPUT_BYTES, Resources(cpu_milli=1)
    job_ids = [await submit(manager, input=data, resources=one) for _ in range(270)]
    placements = tuple(Placement(job_id, "n1", (0,)) for job_id in job_ids)
    await manager.replica.propose(PlacePlan(placements=placements))
    async with manager.agent() as agent:
        received: list[int] = []
        while len(received) < len(job_ids):
            for assignment in (await agent.expect(Assign)).assignments:
                assert assignment.spec is not None and assignment.spec.input == data
                received.append(assignment.job_id)
        assert received == job_ids


async def test_what_was_superseded_or_forgotten_is_stopped(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager)
        await agent.expect(Assign)
        await manager.replica.propose(SetNodeState(node_id="n1", state=NodeState.DISCONNECTED, reason="silent"))
        assert await agent.closed() == (1013, "declared disconnected; say hello again")
    async with manager.agent(attempts=[AttemptKey(job_id, 0, 1), AttemptKey(4711, 0, 1)]) as agent:
        superseded = (AttemptKey(job_id, 0, 1), AttemptKey(4711, 0, 1))
        assert await agent.expect(Stop) == Stop(superseded, "it doesn't count any more")
        assert (await agent.expect(Assign)).assignments[0].tasks == ((0, 2),)


async def test_a_deleted_jobs_spec_is_forgotten(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager, count=2)
        await agent.expect(Assign)
        assert manager.hub.sessions["n1"].specs_sent == {job_id}
        await agent.send(Reports(1, (ended(job_id, 0), ended(job_id, 1))))
        await agent.expect(ReportsAck)
        await manager.replica.propose(DeleteJob(job_id=job_id, actor="ada"))
        assert manager.hub.sessions["n1"].specs_sent == set()
