"""What tests of the stream do to a manager whose log is this process, and read of it."""

from __future__ import annotations

import msgspec

from hasched.model.spec import JobSpec
from hasched.model.states import EndKind, TaskState
from hasched.model.wire import AttemptEnded
from hasched.statemachine.commands import SubmitJob
from hasched.statemachine.outcomes import JobAccepted
from tests.manager.local_replica import LocalReplica
from tests.manager.stream import Manager


def replica_of(manager: Manager) -> LocalReplica:
    assert isinstance(manager.replica, LocalReplica)
    return manager.replica


def written(manager: Manager) -> list[type]:
    return [type(command) for command in replica_of(manager).commands]


async def submit(manager: Manager, count: int = 1, **options: object) -> int:
    spec = msgspec.structs.replace(JobSpec(name="job", command=("true",), count=count), **options)
    number = manager.replica.state.next_job_id
    outcome = await manager.replica.propose(SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec))
    assert isinstance(outcome, JobAccepted)
    return outcome.job_id


def ended(job_id: int, index: int, attempt: int = 1, code: int = 0) -> AttemptEnded:
    return AttemptEnded(job_id, index, attempt, 1, 2, EndKind.EXITED, code)


def state_of(manager: Manager, job_id: int, index: int = 0) -> TaskState:
    return manager.replica.state.jobs[job_id].task_state(index)
