"""A small cluster in virtual time, whose tasks run exactly as long as their time limit says; what answers are tested on."""

from __future__ import annotations

import heapq

from hasched.model.answers import HORIZON_MS, Forecast
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, AttemptStarted, GpuDevice, NodeInfo
from hasched.scheduler.forecast import forecast
from hasched.scheduler.planner import Planner
from hasched.scheduler.rehearsal import SLICE_UNITS
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import BATCH_VERSION, Batch, Command, RegisterNode, ReportAttempts, SubmitJob
from hasched.statemachine.events import TasksScheduled
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.snapshot import records, restore
from hasched.statemachine.state import State

T0 = 1_700_000_000_000
MINUTE = 60_000


def make_spec(minutes: int = 0, cpu: int = 1, **fields: object) -> JobSpec:
    """A job with a time limit of so many minutes; 0: none."""
    asked = {"name": "job", "command": ("true",), "resources": Resources(cpu_milli=cpu * 1000), **fields}
    return JobSpec(timeout_ms=minutes * MINUTE, **asked)  # type: ignore[arg-type]


class Cluster:
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

    def node(
        self,
        node_id: str,
        cpu: int = 1,
        memory: int = 0,
        gpus: int = 0,
        countables: tuple[tuple[str, int], ...] = (),
        gpus_known: tuple[GpuDevice, ...] = (),
        **info: object,
    ) -> None:
        resources = Resources(cpu_milli=cpu * 1000, memory_bytes=memory, gpus=gpus, countables=countables)
        described = NodeInfo(
            hostname=node_id,
            agent_version="1",
            resources=resources,
            gpus=gpus_known,
            **info,  # type: ignore[arg-type]
        )
        self.do(RegisterNode(node_id=node_id, info=described))

    def submit(self, minutes: int = 0, cpu: int = 1, **fields: object) -> Job:
        spec = make_spec(minutes, cpu, **fields)
        number = self.state.next_job_id
        (outcome,) = self.do(SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec)).outcomes
        assert isinstance(outcome, JobAccepted)
        return self.state.jobs[outcome.job_id]

    def change_leader(self) -> None:
        """Another planner begins from the state, as a forecast does: who holds which node is found anew."""
        self.planner = Planner()
        for _ in self.planner.rebuild(self.state):
            pass

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
        active = self.state.jobs[job_id].attempt_of(index)
        assert active is not None
        ended = AttemptEnded(job_id, index, attempt, active.started_ms, self.now_ms, EndKind.EXITED)
        self.do(ReportAttempts(node_id=node_id, reports=(ended,)))

    def snapshot(self) -> list[bytes]:
        return list(records(self.state))

    def foresee(self, horizon_ms: int = HORIZON_MS) -> Forecast:
        return forecast(restore(self.snapshot()), self.now_ms, self.now_ms + horizon_ms)
