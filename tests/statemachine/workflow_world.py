"""A cluster in which workflows are executed: jobs end as the dice say, and the state moves to another manager at any time."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from hasched.model.notices import Channel
from hasched.model.policy import Notification, PolicyKind
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, NodeInfo, Usage
from hasched.model.workflow import After, OnFailure, Role, TaskSpec, When, WorkflowSpec
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import (
    Command,
    Placement,
    PlacePlan,
    PutPolicy,
    RegisterNode,
    ReportAttempts,
    StartExecution,
    StepClock,
    decode_batch,
    encode_batch,
    encode_command,
)
from hasched.statemachine.digest import digest
from hasched.statemachine.events import Event
from hasched.statemachine.execution import Execution, Phase
from hasched.statemachine.invariants import check
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import ExecutionAccepted, Outcome
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.snapshot import records, restore
from hasched.statemachine.state import State
from tests.statemachine.golden import replay

T0 = 1_700_000_000_000
TOLD = "ops"  # the notification that webhooks of random workflows name
MOST_STEPS = 200  # that something can take without anything from outside


class World:
    def __init__(self) -> None:
        self.state = State()
        self.now_ms = T0
        self.log: list[bytes] = []
        self.events: list[Event] = []
        info = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=10**9, memory_bytes=2**40))
        self.do(RegisterNode(node_id="n1", info=info))

    def put_notification(self) -> None:
        body = Notification(to=Channel.SLACK, url_file="chat.url")
        self.do(PutPolicy(kind=PolicyKind.NOTIFICATION, name=TOLD, body=body, actor="root"))

    def told(self) -> list[str]:
        """The hooks of which it has been told, in order."""
        return [each.notice.task for each in self.state.outbox.waiting(TOLD).values()]

    def do(self, command: Command) -> Outcome:
        entry = encode_batch(self.now_ms, [encode_command(command)])
        self.log.append(entry)
        applied: Applied = apply(self.state, self.state.index + 1, decode_batch(entry))
        assert applied.faults == []
        self.events += applied.events
        return applied.outcomes[0]

    def start(self, spec: WorkflowSpec, **fields: object) -> int:
        outcome = self.do(StartExecution(submission_id=f"s{self.state.index}", actor="ada", spec=spec, **fields))  # type: ignore[arg-type]
        assert isinstance(outcome, ExecutionAccepted), outcome
        self.settle()
        return outcome.execution_id

    def settle(self) -> None:
        """Step the clock until nothing is due."""
        for _ in range(MOST_STEPS):
            due_ms = next_deadline(self.state)
            if due_ms is None or due_ms > self.now_ms:
                assert check(self.state) == []
                return
            self.do(StepClock())
        raise AssertionError("it never comes to rest")

    def wait(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        self.settle()

    def jobs(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self.state.jobs.values() if not job.ended]

    def job(self, parent: str) -> Job:
        """The one of an instance that has not ended."""
        (found,) = (job for job in self.jobs() if job.parent == parent)
        return found

    def end(self, job: Job, code: int = 0, output: bytes = b"") -> None:
        """Run its task to such an end."""
        self.run(job)
        ended = AttemptEnded(
            job.id, 0, 1, self.now_ms, self.now_ms, kind=EndKind.EXITED, code=code, usage=Usage(), output=output
        )
        self.do(ReportAttempts(node_id="n1", reports=(ended,)))
        self.settle()

    def run(self, job: Job) -> None:
        if not job.active:
            self.do(PlacePlan(placements=(Placement(job.id, "n1", (0,)),)))

    def stopped(self, job: Job) -> bool:
        """Whether its agent was told to stop it."""
        active = job.attempt_of(0)
        return active is not None and active.stopping

    def execution(self, execution_id: int) -> Execution:
        return self.state.executions[execution_id]

    def states(self, execution_id: int) -> dict[str, str]:
        execution = self.execution(execution_id)
        return {
            task.name: row.state.name.lower()
            for task, row in zip(execution.plan.spec.tasks, execution.rows, strict=True)
        }

    def running(self, execution_id: int) -> dict[tuple[str, int], Job]:
        """The instances whose jobs run, or wait."""
        execution = self.execution(execution_id)
        return {
            (task.name, instance): self.state.jobs[row.jobs[instance]]
            for task, row in zip(execution.plan.spec.tasks, execution.rows, strict=True)
            for instance, phase in enumerate(row.phases)
            if phase == Phase.MADE and task.job is not None
        }

    def fail_over(self, dice: Random) -> None:
        """Another manager leads, that has read a snapshot or the whole log."""
        before = digest(self.state)
        moved = restore(records(self.state)) if dice.random() < 0.7 else replay(self.log)
        assert digest(moved) == before
        assert sorted(moved.ready_executions) == sorted(self.state.ready_executions)
        assert (moved.execution_due_ms, moved.execution_bytes) == (
            self.state.execution_due_ms,
            self.state.execution_bytes,
        )
        self.state = moved


def random_workflow(dice: Random, *, cap: bool = False) -> WorkflowSpec:
    count = dice.randrange(1, 9)
    on_failure = dice.choice((OnFailure.STOP, OnFailure.CONTINUE))
    tasks = [_random_task(dice, row, on_failure) for row in range(count)]
    undone = [row for row in range(count) if dice.random() < 0.3]
    undos = [TaskSpec(name=f"undo-{row}", job=_job(), role=Role.UNDO, of=row) for row in undone]
    finals = [TaskSpec(name=f"final-{number}", job=_job(), role=Role.FINAL) for number in range(dice.randrange(3))]
    return WorkflowSpec(
        name="random",
        tasks=(*tasks, *undos, *finals),
        on_failure=on_failure,
        parallelism=dice.randrange(1, 4) if cap else 0,
    )


def _random_task(dice: Random, row: int, on_failure: OnFailure) -> TaskSpec:
    """With STOP none that fails in the moment in which it begins: what others begin in that moment is a matter of order."""
    before = [each for each in range(row) if dice.random() < 2 / (row + 1)]
    fans_out = dice.random() < 0.4
    items = tuple(range(dice.choice((0, 1, 2, 3, 5)))) if fans_out else ()
    enough = dice.choice((0, 0, 1, 2)) if fans_out else 0
    return TaskSpec(
        name=f"task-{row}",
        job=_job(),
        after=tuple(After(each, dice.choice((When.OK, When.OK, When.OK, When.FAILED, When.ANY))) for each in before),
        condition=dice.choice(("", "", "", "", "true", "false")),
        fans_out=fans_out,
        items=items,
        parallelism=dice.choice((0, 0, 1, 2)) if fans_out else 0,
        enough=enough if on_failure is OnFailure.CONTINUE else min(enough, len(items)),
    )


def with_check(dice: Random, spec: WorkflowSpec) -> WorkflowSpec:
    """The same after a check, half of the time with a job that the world's node could never run: it has no GPU."""
    hopeless = dice.choice((-1, dice.randrange(len(spec.tasks))))
    tasks = [TaskSpec(name="check", validates=True)]
    for row, task in enumerate(spec.tasks):
        after = tuple(After(each.row + 1, each.when) for each in task.after)
        if task.role is Role.MAIN and not after:
            after = (After(0),)
        job = task.job if row != hopeless else replace(_job(), resources=Resources(cpu_milli=1000, gpus=1))
        tasks.append(replace(task, after=after, of=task.of + (task.role is Role.UNDO), job=job))
    return replace(spec, tasks=tuple(tasks))


def with_webhooks(dice: Random, spec: WorkflowSpec) -> WorkflowSpec:
    """The same, but that half of what has no items only has somebody told."""

    def changed(task: TaskSpec) -> TaskSpec:
        stays = task.fans_out or task.role is Role.UNDO or dice.random() < 0.5
        return task if stays else replace(task, job=None, tells=TOLD)

    return replace(spec, tasks=tuple(map(changed, spec.tasks)))


def _job() -> JobSpec:
    return JobSpec(name="job", command=("true",))
