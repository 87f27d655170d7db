"""What an agent is told of gangs and of preemption, by the leader of the moment and by the next."""

from __future__ import annotations

from typing import TypeVar

from hasched.model.spec import Preemption
from hasched.model.states import EndKind, TaskState, WarningSignal
from hasched.model.wire import (
    Assign,
    AttemptCheckpointed,
    AttemptEnded,
    AttemptKey,
    AttemptStarted,
    Freeze,
    Gang,
    GangNode,
    Reports,
    ReportsAck,
    Resume,
    Stop,
)
from hasched.statemachine.commands import CancelJob, PreemptTasks, SuspendJob
from tests.manager.stories import state_of, submit
from tests.manager.stream import Agent, Manager

T = TypeVar("T")
WARNED = Preemption(WarningSignal.USR1, 60_000)


async def test_a_preempted_task_is_warned_as_its_job_wants_and_starts_again_where_it_may_go_on(
    manager: Manager,
) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager, preemption=WARNED)
        await agent.expect(Assign)
        await agent.send(Reports(1, (AttemptStarted(job_id, 0, 1, 5), AttemptCheckpointed(job_id, 0, 1, 7))))
        await agent.expect(ReportsAck)
        await manager.replica.propose(PreemptTasks(job_id=job_id, actor="ada", reason="to move it"))
        key = AttemptKey(job_id, 0, 1)
        assert await agent.expect(Stop) == Stop((key,), "preempted by ada: to move it", "USR1", 60_000)
        await agent.send(Reports(2, (AttemptEnded(job_id, 0, 1, 5, 9, EndKind.STOPPED),)))
        (again,) = (await first_of(agent, Assign)).assignments
        assert (again.tasks, again.resumes) == (((0, 2),), (Resume(0, 7, "n1"),))


async def test_a_new_session_is_told_again_to_warn_what_makes_room(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager, preemption=WARNED)
        await agent.expect(Assign)
        await manager.replica.propose(SuspendJob(job_id=job_id, actor="ada"))
        assert (await agent.expect(Freeze)).frozen
    await manager.replica.propose(PreemptTasks(job_id=job_id, actor="ada"))
    key = AttemptKey(job_id, 0, 1)
    async with manager.agent(attempts=[key]) as agent:
        assert await agent.expect(Stop) == Stop((key,), "preempted by ada", "USR1", 60_000)
        await manager.replica.propose(CancelJob(job_id=job_id, actor="ada"))
        assert await agent.expect(Stop) == Stop((key,), "cancelled")


async def test_a_gang_is_told_of_itself_and_stopped_without_a_warning_when_it_breaks(manager: Manager) -> None:
    async with manager.agent() as agent:
        job_id = await submit(manager, count=3, gang=True, preemption=WARNED)
        (assignment,) = (await agent.expect(Assign)).assignments
        run = manager.replica.state.jobs[job_id].gang_run
        assert run is not None
        assert assignment.gang == Gang(3, run.port, (GangNode("n1", "n1", ((0, 3),)),))
        await agent.send(Reports(1, (AttemptEnded(job_id, 1, 1, 1, 2, EndKind.LOST),)))
        keys = (AttemptKey(job_id, 0, 1), AttemptKey(job_id, 2, 1))
        assert await first_of(agent, Stop) == Stop(keys, "task 1 of the gang ended as NODE_LOST", "TERM", 0)
    async with manager.agent(attempts=keys) as agent:
        assert (await agent.expect(Stop)).warning_ms == 0
        await agent.send(Reports(1, tuple(AttemptEnded(*key_of(key), 1, 2, EndKind.STOPPED) for key in keys)))
        (again,) = (await first_of(agent, Assign)).assignments
        assert again.tasks == ((0, 2), (1, 2), (2, 2))
        await agent.send(Reports(2, (AttemptEnded(job_id, 2, 2, 1, 2, EndKind.EXITED, 1),)))
        assert (await first_of(agent, Stop)).attempts == (AttemptKey(job_id, 0, 2), AttemptKey(job_id, 1, 2))
        assert state_of(manager, job_id, 2) is TaskState.FAILED


async def first_of(agent: Agent, kind: type[T]) -> T:
    """The next message of this kind; acknowledgements come before or after what follows from a report."""
    while True:
        message = await agent.expect((kind, ReportsAck))
        if isinstance(message, kind):
            return message


def key_of(key: AttemptKey) -> tuple[int, int, int]:
    return key.job_id, key.index, key.attempt
