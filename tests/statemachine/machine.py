"""A state machine at the test's hand: everything goes through encoded log entries, as in a manager.

After every command the invariants hold, nothing is promised twice, and if it was refused the state is what it was.
"""

from __future__ import annotations

from typing import Any

from hasched.model.spec import Backoff, JobSpec, Resources, Retries
from hasched.model.states import BackoffKind, EndKind, NodeState
from hasched.model.wire import AttemptCheckpointed, AttemptEnded, AttemptReport, AttemptStarted, NodeInfo, Usage
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import (
    CancelJob,
    Command,
    DeletePolicy,
    PlaceGang,
    Placement,
    PlacePlan,
    PreemptTasks,
    PutPolicy,
    RegisterNode,
    ReportAttempts,
    SetNodeState,
    StepClock,
    SubmitJob,
    decode_batch,
    encode_batch,
    encode_command,
)
from hasched.statemachine.digest import digest
from hasched.statemachine.events import Event
from hasched.statemachine.invariants import check, check_capacity, check_limits
from hasched.statemachine.outcomes import JobAccepted, Outcome, Rejected
from hasched.statemachine.state import Job, State

T0 = 1_700_000_000_000
GIB = 2**30


def content(state: State) -> str:
    """The digest of what the state holds, whatever entry it stands at."""
    index, now_ms = state.index, state.now_ms
    state.index = state.now_ms = 0
    try:
        return digest(state)
    finally:
        state.index, state.now_ms = index, now_ms


class Machine:
    def __init__(self) -> None:
        self.state = State()
        self.now_ms = T0
        self.log: list[bytes] = []
        self.events: list[Event] = []
        self.over: list[str] = []  # limits that were lowered below what runs
        self.shrunk = False  # an inventory has shrunk, so more may be allocated than is there

    def do(self, *commands: Command) -> Applied:
        """One log entry."""
        entry = encode_batch(self.now_ms, [encode_command(command) for command in commands])
        self.log.append(entry)
        before = content(self.state)
        applied = apply(self.state, self.state.index + 1, decode_batch(entry))
        assert applied.faults == []
        assert check(self.state) == []
        assert self.shrunk or check_capacity(self.state) == []
        over = check_limits(self.state)
        assert len(over) <= len(self.over) or any(isinstance(command, PutPolicy | DeletePolicy) for command in commands)
        self.over = over
        if all(isinstance(outcome, Rejected) for outcome in applied.outcomes):
            assert applied.events == []
        if not applied.events:
            assert content(self.state) == before, "a state changed without an event"
        self.events += applied.events
        return applied

    def replay(self, entry: bytes) -> Applied:
        """An entry as another machine has written it."""
        return apply(self.state, self.state.index + 1, decode_batch(entry))

    def outcome(self, command: Command) -> Outcome:
        return self.do(command).outcomes[0]

    def refusal(self, command: Command) -> str:
        """The code of the command's refusal."""
        outcome = self.outcome(command)
        assert isinstance(outcome, Rejected), outcome
        return outcome.code

    def submit(self, submission_id: str = "", **fields: Any) -> Job:
        fields = {"name": "job", "command": ("true",), **fields}
        submission_id = submission_id or f"submission-{self.state.index}"
        outcome = self.outcome(SubmitJob(submission_id=submission_id, actor="ada", spec=JobSpec(**fields)))
        assert isinstance(outcome, JobAccepted), outcome
        return self.state.jobs[outcome.job_id]

    def node(self, node_id: str = "n1", cpu: int = 4, **fields: Any) -> Applied:
        fields = {"cpu_milli": cpu * 1000, "memory_bytes": 16 * GIB, **fields}
        info = NodeInfo(hostname=node_id, agent_version="1", resources=Resources(**fields))
        known = self.state.nodes.get(node_id)
        self.shrunk = self.shrunk or (known is not None and known.total != info.resources)
        return self.do(RegisterNode(node_id=node_id, info=info))

    def place(self, job: Job, *indices: int, node_id: str = "n1") -> Applied:
        return self.do(PlacePlan(placements=(Placement(job.id, node_id, indices or (0,)),)))

    def gang(self, job: Job, *placements: tuple[str, tuple[int, ...]], port: int = 29_400) -> Applied:
        """Start its tasks together: which ranks on which node."""
        there = tuple(Placement(job.id, node_id, ranks) for node_id, ranks in placements)
        return self.do(PlaceGang(job_id=job.id, placements=there, port=port))

    def report(self, *reports: AttemptReport, node_id: str = "n1") -> Applied:
        return self.do(ReportAttempts(node_id=node_id, reports=reports))

    def start(self, job: Job, index: int = 0, attempt: int = 1, node_id: str = "n1") -> Applied:
        return self.report(self.started(job, index, attempt), node_id=node_id)

    def end(self, job: Job, index: int = 0, attempt: int = 1, node_id: str = "n1", **how: Any) -> Applied:
        return self.report(self.ended(job, index, attempt, **how), node_id=node_id)

    def started(self, job: Job, index: int = 0, attempt: int = 1) -> AttemptStarted:
        return AttemptStarted(job.id, index, attempt, self.now_ms)

    def checkpointed(self, job: Job, index: int = 0, attempt: int = 1) -> AttemptCheckpointed:
        return AttemptCheckpointed(job.id, index, attempt, self.now_ms)

    def ended(self, job: Job, index: int = 0, attempt: int = 1, **how: Any) -> AttemptEnded:
        fields = {"kind": EndKind.EXITED, "code": 0, "usage": Usage(7, 4096), **how}
        return AttemptEnded(job.id, index, attempt, self.now_ms, self.now_ms + 50, **fields)

    def lose(self, node_id: str = "n1") -> Applied:
        return self.do(SetNodeState(node_id=node_id, state=NodeState.DISCONNECTED, reason="silent for 30s"))

    def cancel(self, job: Job, *indices: int) -> Applied:
        return self.do(CancelJob(job_id=job.id, actor="bob", reason="not needed", indices=indices))

    def preempt(self, job: Job, *indices: int, reason: str = "maintenance") -> Applied:
        return self.do(PreemptTasks(job_id=job.id, actor="bob", reason=reason, indices=indices))

    def wait(self, duration_ms: int) -> Applied:
        self.now_ms += duration_ms
        return self.do(StepClock())


def retries(most: int = 0, *, node_lost: int = 3, initial_ms: int = 0) -> Retries:
    backoff = Backoff(kind=BackoffKind.LINEAR, initial_ms=initial_ms, max_ms=3 * initial_ms)
    return Retries(max=most, node_lost=node_lost, backoff=backoff)
