"""The product's planner and state machine, in virtual time and without a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.trace import NodeKind, TraceJob
from hasched.manager.planning import SLICE_UNITS
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, GpuDevice, NodeInfo
from hasched.scheduler.planner import Planner
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import Batch, Command, RegisterNode, ReportAttempts, StepClock, SubmitJob
from hasched.statemachine.events import TasksScheduled
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.state import State

GIB = 2**30
EPOCH_MS = 1_700_000_000_000


class Replayed:
    """Implements `week.Scheduler`. What is told between two `start`s is one log entry."""

    def __init__(self, kinds: list[NodeKind]) -> None:
        self._state = State()
        self._planner = Planner()
        self._commands: list[Command] = [
            _register(number, kind) for number, kind in enumerate(k for k in kinds for _ in range(k.nodes))
        ]
        self._numbers: dict[int, int] = {}  # of the trace's jobs, by id
        self._ids: dict[int, int] = {}
        self._nodes: dict[tuple[int, int], str] = {}
        for _ in self._planner.rebuild(self._state):
            pass

    def submit(self, number: int, job: TraceJob, now_s: int) -> None:
        spec = JobSpec(
            name="week",
            command=("true",),
            count=len(job.runs_s),
            resources=Resources(cpu_milli=job.cpus * 1000, memory_bytes=job.memory_gib * GIB, gpus=job.gpus),
            timeout_ms=job.limit_s * 1000,
            gang=job.gang,
        )
        self._commands.append(SubmitJob(submission_id=str(number), actor=f"u{job.user}", spec=spec))

    def ended(self, number: int, index: int, job: TraceJob, now_s: int) -> None:
        node = self._nodes.pop((number, index))
        now_ms = EPOCH_MS + now_s * 1000
        report = AttemptEnded(self._ids[number], index, 1, now_ms, now_ms, EndKind.EXITED)
        self._commands.append(ReportAttempts(node_id=node, reports=(report,)))

    def start(self, now_s: int) -> Iterator[tuple[int, int]]:
        commands, self._commands = [*self._commands, StepClock()], []
        applied = self._apply(now_s, commands)
        for command, outcome in zip(commands, applied.outcomes, strict=True):
            if isinstance(outcome, JobAccepted) and isinstance(command, SubmitJob):
                self._numbers[outcome.job_id] = int(command.submission_id)
                self._ids[int(command.submission_id)] = outcome.job_id
        while self._planner.ready:
            plan = self._planner.plan(self._state, SLICE_UNITS)
            if plan is not None:
                for event in self._apply(now_s, [plan]).events:
                    if isinstance(event, TasksScheduled):
                        number = self._numbers[event.job_id]
                        self._nodes |= {(number, index): event.node_id for index in event.indices}
                        yield from ((number, index) for index in event.indices)
                self._planner.settle(self._state, plan)

    def _apply(self, now_s: int, commands: Sequence[Command]) -> Applied:
        batch = Batch(v=1, now_ms=EPOCH_MS + now_s * 1000, commands=list(commands))
        applied = apply(self._state, self._state.index + 1, batch)
        self._planner.observe(self._state, applied)
        return applied


def _register(number: int, kind: NodeKind) -> RegisterNode:
    info = NodeInfo(
        hostname=f"n{number}",
        agent_version="0",
        resources=Resources(cpu_milli=kind.cpus * 1000, memory_bytes=kind.memory_gib * GIB, gpus=kind.gpus),
        gpus=tuple(GpuDevice(f"{number}-{gpu}", "X", 80 * GIB) for gpu in range(kind.gpus)),
    )
    return RegisterNode(node_id=f"n{number}", info=info)
