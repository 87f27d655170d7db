"""A core whose supervisor and manager are the test: it tells the core what happens and reads what it asks for."""

from __future__ import annotations

from typing import Any

from hasched.agent.core import AgentCore
from hasched.agent.devices import number_gpus
from hasched.agent.events import (
    CheckDevices,
    Connected,
    DevicesSeen,
    Event,
    Happened,
    Instruction,
    Now,
    Received,
    Recovered,
    Row,
    Save,
    Saved,
    Send,
    SupervisorUp,
)
from hasched.agent.protocol import (
    Inventory,
    Launch,
    Observed,
    RunningAttempt,
)
from hasched.model.ids import AttemptId
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.wire import (
    Assign,
    Assignment,
    AttemptEnded,
    AttemptKey,
    AttemptReport,
    AttemptStarted,
    Freeze,
    HeartbeatAck,
    ReportsAck,
    Stop,
    Welcome,
)

SPEC = JobSpec(name="job", command=("true",))
KEY = AttemptKey(1, 0, 1)
STARTED = AttemptStarted(1, 0, 1, 1_000)
ENDED = AttemptEnded(1, 0, 1, 1_000, 2_000, EndKind.EXITED, 3)


class Story:
    """A core with a supervisor and a session, and what it asked for last."""

    def __init__(self, gpus: int = 0, instance: str = "s1", rows: tuple[Row, ...] = ()) -> None:
        self.devices = tuple(number_gpus(gpus))  # as whoever looks finds them
        self.core = AgentCore(self.devices)
        self.now_ms = 10_000
        self.saves = 0
        self.tell(Recovered(rows))
        self.meet(instance)
        self.connect()

    @property
    def now(self) -> Now:
        return Now(self.now_ms, 1_000_000 + self.now_ms)

    def tell(self, event: Event) -> list[Instruction]:
        instructions = self.core.handle(event)
        if CheckDevices() in instructions:
            instructions += self.core.handle(DevicesSeen(self.devices, self.now))
        self.saves += sum(isinstance(each, Save) for each in instructions)
        return instructions

    def meet(
        self, instance: str, running: tuple[RunningAttempt, ...] = (), ended: tuple[AttemptEnded, ...] = ()
    ) -> list[Instruction]:
        return self.tell(SupervisorUp(Inventory("0", instance, 1, "rlimit", running, ended), self.now))

    def connect(self, lease_ms: int = 20_000) -> list[Instruction]:
        return self.tell(Connected(Welcome("m1", 1, 1_000, lease_ms), self.now_ms, self.now))

    def assign(
        self, job_id: int = 1, attempt: int = 1, index: int = 0, spec: JobSpec | None = SPEC
    ) -> list[Instruction]:
        return self.receive(Assign((Assignment(job_id, spec, ((index, attempt),)),)))

    def receive(self, message: Assign | Stop | Freeze | ReportsAck | HeartbeatAck) -> list[Instruction]:
        return self.tell(Received(message, self.now))

    def saved(self) -> list[Instruction]:
        return self.tell(Saved(self.saves, self.now))

    def happens(self, *reports: AttemptReport) -> list[Instruction]:
        return self.tell(Happened(Observed(reports), self.now))

    def launch(self, **arguments: Any) -> list[Instruction]:
        self.assign(**arguments)
        return self.saved()


def only(kind: type, instructions: list[Instruction]) -> list[Instruction]:
    return [each for each in instructions if isinstance(each, kind)]


def gpu_spec(gpus: int) -> JobSpec:
    return JobSpec(name="gpu", command=("true",), resources=Resources(gpus=gpus))


def launched(instructions: list[Instruction]) -> list[AttemptId]:
    return [
        AttemptId(job.job_id, task.index, task.attempt)
        for each in instructions
        if isinstance(each, Launch)
        for job in each.jobs
        for task in job.tasks
    ]


def reported(instructions: list[Instruction]) -> list[AttemptReport]:
    return [report for each in instructions if isinstance(each, Send) for report in each.reports.reports]
