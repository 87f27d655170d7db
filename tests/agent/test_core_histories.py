"""Every order of events: agents, supervisors and sessions die at any moment, and the core keeps its promises.

The world around the core is simulated: a table whose writes come late, a supervisor, and a manager that compares anew with
each session. What must hold: an attempt is launched at most once, two attempts of a task never run together, a GPU has
one owner, and in the end every attempt that was assigned has had its end accepted.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hasched.agent.core import AgentCore
from hasched.agent.devices import number_gpus
from hasched.agent.events import (
    CheckDevices,
    Connected,
    DevicesSeen,
    Disconnected,
    Event,
    Happened,
    Now,
    Received,
    Reconnect,
    Recovered,
    Row,
    Save,
    Saved,
    SaveFailed,
    Send,
    SupervisorDown,
    SupervisorUp,
    Tick,
)
from hasched.agent.protocol import (
    Forget,
    FreezeAttempts,
    Inventory,
    Launch,
    LaunchTask,
    Observed,
    RunningAttempt,
    StopAttempts,
    ToSupervisor,
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
    Reports,
    ReportsAck,
    Stop,
    Welcome,
)

FIRST_GPUS = ("A",)
GPUS = st.sampled_from([("B", "A"), FIRST_GPUS, ()])  # what a starting agent finds
JOBS = st.integers(1, 2)
RARELY = st.sampled_from([False, False, False, True])


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.gpus = FIRST_GPUS
        self.doubted = False  # the core wants the devices looked at
        self.core = AgentCore(number_gpus(len(self.gpus), self.gpus))
        self.rows: dict[AttemptId, Row] = {}
        self.saves: list[Save] = []
        self.instance = 1
        self.inbox: list[ToSupervisor] = []
        self.running: dict[AttemptId, LaunchTask] = {}
        self.stopping: dict[AttemptId, None] = {}
        self.held: dict[AttemptId, AttemptEnded] = {}
        self.news: list[AttemptReport] = []
        self.launched: dict[AttemptId, None] = {}
        self.connected = False
        self.frames: list[Reports] = []
        self.wanted: dict[AttemptId, JobSpec] = {}  # assigned, and without an accepted end
        self.latest: dict[int, int] = {}
        self.accepted: dict[AttemptId, AttemptEnded] = {}
        self.meet()
        self.connect()

    # The world.

    @property
    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms)

    def tell(self, event: Event) -> None:
        reconnect = False
        for instruction in self.core.handle(event):
            match instruction:
                case CheckDevices():
                    self.doubted = True
                case Save():
                    self.saves.append(instruction)
                case Send(reports=reports):
                    assert self.connected, "nothing is sent without a session"
                    self.frames.append(reports)
                case Reconnect():
                    reconnect = True
                case _:
                    self.inbox.append(instruction)
        if reconnect and self.connected:
            self.disconnect()
            self.connect()

    def meet(self) -> None:
        self.obey_all()
        self.news.clear()
        running = tuple(RunningAttempt(*key, 1, task.gpus, task.gpu_uuids) for key, task in self.running.items())
        inventory = Inventory("0", f"s{self.instance}", 1, "rlimit", running, tuple(self.held.values()))
        self.tell(SupervisorUp(inventory, self.now))

    def obey_all(self) -> None:
        while self.inbox:
            self.obey(self.inbox.pop(0))

    def obey(self, message: ToSupervisor) -> None:
        match message:
            case Launch(jobs=jobs):
                for job in jobs:
                    for task in job.tasks:
                        key = AttemptId(job.job_id, task.index, task.attempt)
                        assert key not in self.launched, f"{key} was launched twice"
                        self.launched[key] = None
                        self.running[key] = task
                        self.news.append(AttemptStarted(*key, 1))
            case StopAttempts(attempts=keys):
                for key in keys:
                    self.stopping[AttemptId(key.job_id, key.index, key.attempt)] = None  # its grace takes a while
            case Forget(attempts=keys):
                for key in keys:
                    self.held.pop(AttemptId(key.job_id, key.index, key.attempt), None)
            case FreezeAttempts():
                pass
            case _:
                pass

    def end(self, key: AttemptId, kind: EndKind, code: int = 0) -> None:
        if key in self.running:
            del self.running[key]
            kind = EndKind.STOPPED if key in self.stopping else kind
            self.held[key] = AttemptEnded(*key, 1, 2, kind, code)
            self.news.append(self.held[key])

    def connect(self) -> None:
        self.connected = True
        self.frames.clear()
        known = {AttemptId(key.job_id, key.index, key.attempt): None for key in self.core.attempts()}
        self.tell(Connected(Welcome("m1", 1, 1000, 20_000), self.now_ms, self.now))
        for key, spec in list(self.wanted.items()):
            if key not in known:
                self.assign(key, spec)
        stale = tuple(AttemptKey(*key) for key in known if key not in self.wanted)
        if stale:
            self.tell(Received(Stop(stale, "superseded"), self.now))

    def disconnect(self) -> None:
        self.connected = False
        self.frames.clear()
        self.tell(Disconnected())

    def assign(self, key: AttemptId, spec: JobSpec) -> None:
        self.tell(Received(Assign((Assignment(key.job_id, spec, ((key.index, key.attempt),)),)), self.now))

    # What can happen.

    @rule(job_id=JOBS, gpus=st.integers(0, 1))
    def a_manager_assigns_the_next_attempt(self, job_id: int, gpus: int) -> None:
        number = self.latest.get(job_id, 0) + 1
        for key in [key for key in self.wanted if key.job_id == job_id]:
            del self.wanted[key]  # superseded: its report will be refused
        self.latest[job_id] = number
        key = AttemptId(job_id, 0, number)
        self.wanted[key] = JobSpec(name="job", command=("true",), resources=Resources(gpus=gpus))
        if self.connected:
            self.assign(key, self.wanted[key])

    @precondition(lambda self: self.connected and self.wanted)
    @rule(number=st.integers(0, 10))
    def a_manager_repeats_an_assignment(self, number: int) -> None:
        key = list(self.wanted)[number % len(self.wanted)]
        self.assign(key, self.wanted[key])

    @precondition(lambda self: self.connected)
    @rule(job_id=JOBS)
    def a_manager_stops_a_job(self, job_id: int) -> None:
        keys = tuple(AttemptKey(*key) for key in self.wanted if key.job_id == job_id)
        if keys:
            self.tell(Received(Stop(keys, "cancelled"), self.now))

    @precondition(lambda self: self.connected)
    @rule(job_id=JOBS, frozen=st.booleans())
    def a_manager_freezes_a_job(self, job_id: int, frozen: bool) -> None:
        keys = tuple(AttemptKey(*key) for key in self.wanted if key.job_id == job_id)
        if keys:
            self.tell(Received(Freeze(keys, frozen), self.now))

    @precondition(lambda self: self.saves)
    @rule(fails=RARELY)
    def the_table_is_written(self, fails: bool) -> None:
        saves, self.saves = self.saves, []
        if fails:
            self.tell(SaveFailed(saves[-1].number, "disk full", self.now))
            return
        for save in saves:
            for row in save.added:
                self.rows.setdefault(row.key, row)
            for ended in save.ended:
                key = AttemptId(ended.job_id, ended.index, ended.attempt)
                self.rows[key] = Row(key, self.rows[key].supervisor if key in self.rows else "", ended)
            for key in save.removed:
                self.rows.pop(key, None)
        self.tell(Saved(saves[-1].number, self.now))

    @precondition(lambda self: self.inbox)
    @rule()
    def the_supervisor_obeys(self) -> None:
        self.obey_all()

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 10), code=st.integers(0, 1))
    def a_task_ends(self, number: int, code: int) -> None:
        self.end(list(self.running)[number % len(self.running)], EndKind.EXITED, code)

    @precondition(lambda self: self.news)
    @rule()
    def the_supervisor_tells(self) -> None:
        news, self.news = tuple(self.news), []
        self.tell(Happened(Observed(news), self.now))

    @precondition(lambda self: self.frames)
    @rule()
    def a_manager_commits_reports(self) -> None:
        frame = self.frames.pop(0)
        for report in frame.reports:
            key = AttemptId(report.job_id, report.index, report.attempt)
            if isinstance(report, AttemptEnded) and key in self.wanted:
                del self.wanted[key]
                self.accepted[key] = report
        self.tell(Received(ReportsAck(frame.number), self.now))

    @rule(ms=st.integers(1, 200))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        wake_ms = self.core.wake_at_ms
        if wake_ms is not None and wake_ms <= self.now_ms:
            self.tell(Tick(self.now))

    @precondition(lambda self: self.connected)
    @rule()
    def the_session_breaks(self) -> None:
        self.disconnect()

    @precondition(lambda self: not self.connected)
    @rule()
    def the_agent_connects(self) -> None:
        self.connect()

    @rule(really=RARELY)
    def the_agent_is_killed_and_started_again(self, really: bool) -> None:
        if really:
            self.start_again()

    @precondition(lambda self: any(task.gpu_uuids for task in self.running.values()))
    @rule(gpus=GPUS)
    def the_agent_is_started_again_and_finds_other_gpus(self, gpus: tuple[str, ...]) -> None:
        self.gpus = gpus
        self.start_again()

    @precondition(lambda self: self.doubted)
    @rule()
    def the_devices_are_looked_at(self) -> None:
        self.doubted = False
        self.tell(DevicesSeen(tuple(number_gpus(len(self.gpus), self.gpus)), self.now))

    @precondition(lambda self: any(task.gpu_uuids for task in self.running.values()))
    @rule(gpus=GPUS)
    def gpus_come_and_go(self, gpus: tuple[str, ...]) -> None:
        self.gpus = gpus
        self.doubted = True
        self.the_devices_are_looked_at()

    def start_again(self) -> None:
        self.doubted = False
        self.connected = False
        self.frames.clear()
        self.saves.clear()
        self.core = AgentCore(number_gpus(len(self.gpus), self.gpus))
        self.tell(Recovered(tuple(self.rows.values())))
        self.meet()
        self.connect()

    @rule(really=RARELY)
    def the_supervisor_is_killed(self, really: bool) -> None:
        if not really:
            return
        self.inbox.clear()
        self.running.clear()
        self.held.clear()
        self.news.clear()
        self.instance += 1
        self.tell(SupervisorDown())
        self.inbox.clear()
        self.meet()

    # What must hold.

    @invariant()
    def one_attempt_of_a_task_runs(self) -> None:
        tasks = [(key.job_id, key.index) for key in self.running]
        assert len(tasks) == len(dict.fromkeys(tasks))

    @invariant()
    def a_gpu_has_one_owner(self) -> None:
        bound = [gpu for task in self.running.values() for gpu in task.gpu_uuids]
        assert len(bound) == len(dict.fromkeys(bound))

    def teardown(self) -> None:
        """When nothing fails any more, everything that was assigned comes to its end, and is forgotten here."""
        if not self.connected:
            self.connect()
        for step in range(50):
            if step == 20:  # what a failed write left in the table goes with the next one
                self.a_manager_assigns_the_next_attempt(job_id=99, gpus=0)
            for key in list(self.wanted):
                self.tell(Received(Freeze((AttemptKey(*key),), False), self.now))
            if self.saves:
                self.the_table_is_written(fails=False)
            self.obey_all()
            for key in list(self.running):
                self.end(key, EndKind.EXITED)
            self.the_supervisor_tells()
            if self.doubted:
                self.the_devices_are_looked_at()
            while self.frames:
                self.a_manager_commits_reports()
            self.time_passes(200)
        assert not self.wanted, f"no end was accepted of {list(self.wanted)}"
        assert self.core.attempts() == ()
        assert not self.rows
        assert not self.held


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
