"""The agent's decisions, one by one: no process, no clock, no disk."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hasched.agent.core import SAVE_END_DELAY_MS, AgentCore
from hasched.agent.devices import Device, number_gpus
from hasched.agent.events import (
    CheckDevices,
    Connected,
    DevicesSeen,
    Disconnected,
    Event,
    Happened,
    HeartbeatSent,
    Instruction,
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
from hasched.agent.outbox import MAX_REPORTS, REPORTS_IN_FLIGHT, START_REPORT_DELAY_MS
from hasched.agent.protocol import (
    MAX_REASON,
    Forget,
    FreezeAttempts,
    Inventory,
    Launch,
    LaunchTask,
    Lease,
    Observed,
    RunningAttempt,
    StopAttempts,
)
from hasched.model.ids import AttemptId
from hasched.model.spec import JobSpec, PlacementRules, Resources
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
    Reports,
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


def test_a_row_is_on_disk_before_the_launch() -> None:
    story = Story()
    assert story.assign() == [Save(1, added=(Row(AttemptId(1, 0, 1), "s1"),))]
    (launch,) = story.saved()
    assert isinstance(launch, Launch)
    assert launch.jobs[0].tasks == (LaunchTask(0, 1, None),)


def test_a_task_gets_what_its_alternative_asks_for() -> None:
    first, second = Resources(cpu_milli=4000), Resources(cpu_milli=500, memory_bytes=2**20)
    spec = JobSpec(
        name="job", command=("true",), count=2, resources=first, placement=PlacementRules(any_of=(first, second))
    )
    story = Story()
    story.receive(Assign((Assignment(1, spec, ((0, 1), (1, 1)), choices=((1, 1),)),)))
    (launch,) = story.saved()
    assert isinstance(launch, Launch)
    asked = {task.index: (job.cpu_milli, job.memory_bytes) for job in launch.jobs for task in job.tasks}
    assert asked == {0: (4000, 0), 1: (500, 2**20)}


def test_a_known_attempt_is_not_taken_again() -> None:
    story = Story()
    story.launch()
    assert story.assign() == []
    story.happens(STARTED, ENDED)
    assert story.assign() == []


def test_an_end_is_reported_once_the_supervisor_says_so_and_forgotten_once_acknowledged() -> None:
    story = Story()
    story.launch()
    assert story.happens(STARTED) == [Send(Reports(1, (STARTED,)))]
    story.receive(ReportsAck(1))
    assert story.happens(ENDED) == [Send(Reports(2, (ENDED,)))]
    assert story.core.attempts() == (KEY,)
    assert story.receive(ReportsAck(2)) == [Save(2, removed=(AttemptId(1, 0, 1),))]
    assert story.saved() == [Forget((KEY,))]
    assert story.core.attempts() == ()


def test_a_task_that_ends_at_once_is_one_report() -> None:
    story = Story()
    story.launch()
    assert reported(story.happens(ENDED)) == [ENDED]


def test_few_frames_are_on_the_way_and_the_rest_shares_the_next() -> None:
    story = Story()
    for job_id in range(1, 6):
        story.launch(job_id=job_id)
    ends = [AttemptEnded(job_id, 0, 1, 1, 2, EndKind.EXITED) for job_id in range(1, 6)]
    sent = [reported(story.happens(end)) for end in ends]
    assert sent == [[ends[0]], [ends[1]], [], [], []]
    assert REPORTS_IN_FLIGHT == 2
    assert reported(story.receive(ReportsAck(1))) == ends[2:]


def test_a_start_under_load_waits_a_moment_for_its_end() -> None:
    story = Story()
    story.launch(job_id=1)
    story.launch(job_id=2)
    assert reported(story.happens(ENDED))
    second = AttemptStarted(2, 0, 1, 5)
    assert reported(story.happens(second)) == []
    assert story.core.wake_at_ms == story.now_ms + START_REPORT_DELAY_MS
    story.now_ms += START_REPORT_DELAY_MS
    assert reported(story.tell(Tick(story.now))) == [second]


def test_a_batch_is_bounded() -> None:
    story = Story()
    spec = JobSpec(name="array", command=("true",), count=3000)
    story.receive(Assign((Assignment(1, spec, tuple((index, 1) for index in range(3000))),)))
    story.saved()
    sends = only(Send, story.happens(*(AttemptEnded(1, index, 1, 1, 2, EndKind.EXITED) for index in range(3000))))
    assert [len(reported([send])) for send in sends] == [MAX_REPORTS, MAX_REPORTS]


def test_a_batch_is_bounded_in_bytes_of_output_and_of_reasons() -> None:
    story = Story()
    story.receive(Assign((Assignment(1, SPEC, tuple((index, 1) for index in range(80))),)))
    story.saved()
    large = AttemptEnded(1, 0, 1, 1, 2, EndKind.LAUNCH_FAILED, output=bytes(16_384), reason="é" * 100_000)
    ends = [msgspec.structs.replace(large, index=index) for index in range(80)]
    sends = only(Send, story.happens(*ends))
    assert [len(reported([send])) for send in sends] == [4, 4]


def test_what_the_agent_says_itself_is_cut() -> None:
    story = Story()
    story.assign()
    (report,) = reported(story.tell(SaveFailed(1, "x" * 100_000, story.now)))
    assert isinstance(report, AttemptEnded)
    assert len(report.reason) == MAX_REASON


def test_a_new_session_repeats_what_is_not_acknowledged() -> None:
    story = Story()
    story.launch(job_id=1)
    story.launch(job_id=2)
    other = AttemptStarted(2, 0, 1, 5)
    story.happens(ENDED, other)
    story.tell(Disconnected())
    assert reported(story.connect()) == [ENDED, other]


def test_an_acknowledged_start_is_not_repeated() -> None:
    story = Story()
    story.launch()
    story.happens(STARTED)
    story.receive(ReportsAck(1))
    story.tell(Disconnected())
    assert reported(story.connect()) == []


def test_an_end_that_nobody_takes_is_written_down() -> None:
    story = Story()
    story.launch()
    story.tell(Disconnected())
    story.happens(ENDED)
    assert story.core.wake_at_ms == story.now_ms + SAVE_END_DELAY_MS
    assert story.tell(Tick(story.now)) == []
    story.now_ms += SAVE_END_DELAY_MS
    assert story.tell(Tick(story.now)) == [Save(2, ended=(ENDED,))]
    assert story.saved() == [Forget((KEY,))]
    assert story.core.wake_at_ms is None


def test_a_table_that_cannot_be_written_loses_the_attempt() -> None:
    story = Story()
    story.assign()
    (report,) = reported(story.tell(SaveFailed(1, "disk full", story.now)))
    assert isinstance(report, AttemptEnded)
    assert (report.kind, report.ended_ms) == (EndKind.LOST, story.now.wall_ms)
    assert "disk full" in report.reason


def test_a_newer_attempt_stops_the_older_and_waits_for_its_end() -> None:
    story = Story()
    story.launch()
    story.happens(STARTED)
    assert only(StopAttempts, story.assign(attempt=3)) == [
        StopAttempts((KEY,), "a newer attempt of the task was assigned")
    ]
    assert launched(story.saved()) == []
    assert launched(story.happens(ENDED)) == [AttemptId(1, 0, 3)]
    assert story.assign(attempt=2) == [], "an older attempt has no say any more"


def test_the_oldest_of_three_is_awaited_too() -> None:
    story = Story()
    story.launch()
    story.happens(STARTED)
    story.assign(attempt=2)
    story.assign(attempt=3)
    assert launched(story.saved()) == []
    assert launched(story.happens(ENDED)) == [AttemptId(1, 0, 3)]


def test_an_older_attempt_is_awaited_also_when_the_one_between_is_gone() -> None:
    story = Story()
    story.launch()
    story.happens(STARTED)
    story.receive(ReportsAck(1))
    story.assign(attempt=2)
    assert reported(story.tell(SaveFailed(2, "disk full", story.now)))
    story.receive(ReportsAck(2))
    story.assign(attempt=3)
    assert launched(story.saved()) == []
    assert launched(story.happens(ENDED)) == [AttemptId(1, 0, 3)]


def test_a_stop_before_the_launch_needs_no_process() -> None:
    story = Story()
    story.assign()
    (report,) = reported(story.receive(Stop((KEY,), "cancelled")))
    assert isinstance(report, AttemptEnded)
    assert (report.kind, report.started_ms) == (EndKind.STOPPED, 0)
    assert launched(story.saved()) == []


def test_a_stop_of_a_running_attempt_goes_to_the_supervisor() -> None:
    story = Story()
    story.launch()
    assert story.receive(Stop((KEY,), "cancelled")) == [StopAttempts((KEY,), "cancelled")]


def test_a_frozen_attempt_does_not_start() -> None:
    story = Story()
    story.assign()
    story.receive(Freeze((KEY,), True))
    assert launched(story.saved()) == []
    assert launched(story.receive(Freeze((KEY,), False))) == [AttemptId(1, 0, 1)]
    assert story.receive(Freeze((KEY,), True)) == [FreezeAttempts((KEY,), True)]


def test_gpus_are_never_shared() -> None:
    """The managers count the first as lost, and gave its GPUs to the second; here it takes a while to stop."""
    story = Story(gpus=2)
    story.assign(job_id=1, spec=gpu_spec(2))
    (first,) = only(Launch, story.saved())
    assert isinstance(first, Launch)
    assert first.jobs[0].tasks[0].gpus == "0,1"
    story.receive(Stop((KEY,), "it doesn't count any more"))
    story.assign(job_id=2, spec=gpu_spec(2))
    assert launched(story.saved()) == []
    assert launched(story.happens(ENDED)) == [AttemptId(2, 0, 1)]


def test_a_node_with_too_few_gpus_gives_the_attempt_back() -> None:
    """It had two when the managers placed this."""
    story = Story(gpus=1)
    story.assign(spec=gpu_spec(2))
    (lost,) = reported(story.saved())
    assert isinstance(lost, AttemptEnded)
    assert (lost.kind, lost.started_ms) == (EndKind.LOST, 0)
    assert lost.reason == "the node has 1 GPU now, too few for what was placed on it"
    assert story.core.attempts() == (KEY,), "until a manager has taken it"


def test_what_stays_goes_before_what_was_placed_when_there_were_more_gpus() -> None:
    story = Story(gpus=2)
    assert launched(story.launch(job_id=1, spec=gpu_spec(1))) == [AttemptId(1, 0, 1)]
    story.assign(job_id=2, spec=gpu_spec(2))
    (lost,) = reported(story.saved())
    assert isinstance(lost, AttemptEnded)
    assert (lost.job_id, lost.kind) == (2, EndKind.LOST)
    assert launched(story.launch(job_id=3, spec=gpu_spec(1))) == [AttemptId(3, 0, 1)]


def test_what_is_frozen_is_given_back_once_it_may_start() -> None:
    story = Story(gpus=0)
    story.assign(spec=gpu_spec(1))
    story.receive(Freeze((KEY,), True))
    assert reported(story.saved()) == []
    (lost,) = reported(story.receive(Freeze((KEY,), False)))
    assert isinstance(lost, AttemptEnded)
    assert lost.kind is EndKind.LOST


@pytest.mark.parametrize(
    ("uuids", "stopped", "free"),
    [
        pytest.param(("A", "B"), [], None, id="both are there"),
        pytest.param(("A",), [2], None, id="the second is gone"),
        pytest.param(("B",), [1], None, id="the first is gone, and the second has its number now"),
        pytest.param(("B", "A"), [], None, id="they have changed places"),
        pytest.param(("C", "A"), [2], "0", id="another has taken the place of the first"),
        pytest.param((), [1, 2], None, id="none is there"),
    ],
)
def test_an_attempt_whose_gpu_is_gone_is_stopped_and_the_others_keep_theirs(
    uuids: tuple[str, ...], stopped: list[int], free: str | None
) -> None:
    """An agent starts again on a machine whose devices have changed, while the supervisor ran on."""
    story = Story()
    story.core = AgentCore(number_gpus(len(uuids), uuids))
    story.tell(Recovered(tuple(Row(AttemptId(job_id, 0, 1), "s1") for job_id in (1, 2))))
    running = (RunningAttempt(1, 0, 1, 500, "0", ("A",)), RunningAttempt(2, 0, 1, 500, "1", ("B",)))
    stops = only(StopAttempts, story.meet("s1", running=running))
    assert [key.job_id for stop in stops for key in stop.attempts] == stopped
    for stop in stops:
        assert stop.reason.startswith("a GPU that it held is gone: ")
    story.connect()
    (launch,) = only(Launch, story.launch(job_id=3, spec=gpu_spec(1))) or [None]
    assert (launch and launch.jobs[0].tasks[0].gpus) == free


def test_a_gpu_is_known_by_its_number_where_it_has_no_name() -> None:
    story = Story()
    story.core = AgentCore(number_gpus(1))
    story.tell(Recovered(tuple(Row(AttemptId(job_id, 0, 1), "s1") for job_id in (1, 2))))
    running = (RunningAttempt(1, 0, 1, 500, "0"), RunningAttempt(2, 0, 1, 500, "1"))
    (stop,) = only(StopAttempts, story.meet("s1", running=running))
    assert stop == StopAttempts((AttemptKey(2, 0, 1),), "a GPU that it held is gone: 1")


def test_an_attempt_whose_gpu_disappears_is_stopped_and_ends_with_that_as_its_reason() -> None:
    story = Story()
    story.devices = tuple(number_gpus(2, ("A", "B")))
    story.tell(DevicesSeen(story.devices, story.now))
    (launch,) = only(Launch, story.launch(spec=gpu_spec(1)))
    assert isinstance(launch, Launch)
    task = launch.jobs[0].tasks[0]
    assert (task.gpus, task.gpu_uuids, task.env) == ("0", ("A",), {"HASCHED_DEVICES": "gpu=A"})
    story.happens(STARTED)
    gone = "a GPU that it held is gone: A"
    instructions = story.tell(DevicesSeen(tuple(number_gpus(1, ("B",))), story.now))
    assert instructions == [StopAttempts((KEY,), gone)]
    assert story.tell(DevicesSeen(tuple(number_gpus(1, ("B",))), story.now)) == [], "once"
    (end,) = reported(story.happens(AttemptEnded(1, 0, 1, 1_000, 2_000, EndKind.STOPPED, reason="stopped")))
    assert isinstance(end, AttemptEnded)
    assert (end.kind, end.reason) == (EndKind.DEVICE_LOST, gone)


@pytest.mark.parametrize(
    ("found", "kind", "code"),
    [
        pytest.param(("A",), EndKind.EXITED, 3, id="its GPU is well: the task failed"),
        pytest.param((), EndKind.DEVICE_LOST, 0, id="its GPU is gone: that is why it failed"),
    ],
)
def test_a_failure_of_who_holds_a_device_is_believed_after_a_look(
    found: tuple[str, ...], kind: EndKind, code: int
) -> None:
    """A GPU that falls off the bus ends its task with some error, long before anybody looks again."""
    story = Story()
    story.devices = tuple(number_gpus(1, ("A",)))
    story.tell(DevicesSeen(story.devices, story.now))
    story.launch(spec=gpu_spec(1))
    story.devices = tuple(number_gpus(len(found), found))
    instructions = story.happens(STARTED, ENDED)
    assert CheckDevices() in instructions
    end = reported(instructions)[-1]
    assert isinstance(end, AttemptEnded)
    assert (end.kind, end.code) == (kind, code)


def test_a_success_needs_no_look() -> None:
    story = Story(gpus=1)
    story.launch(spec=gpu_spec(1))
    instructions = story.happens(STARTED, AttemptEnded(1, 0, 1, 1_000, 2_000, EndKind.EXITED))
    assert CheckDevices() not in instructions
    assert isinstance(reported(instructions)[-1], AttemptEnded)


def test_who_succeeds_though_its_device_is_gone_has_succeeded() -> None:
    story = Story(gpus=1)
    story.launch(spec=gpu_spec(1))
    story.happens(STARTED)
    story.tell(DevicesSeen((), story.now))
    end = reported(story.happens(AttemptEnded(1, 0, 1, 1_000, 2_000, EndKind.EXITED)))[-1]
    assert isinstance(end, AttemptEnded)
    assert (end.kind, end.code) == (EndKind.EXITED, 0)


def test_a_device_that_is_unwell_is_given_to_nobody_and_taken_from_nobody() -> None:
    story = Story(gpus=1)
    story.launch(spec=gpu_spec(1))
    story.happens(STARTED)
    unwell = (Device(id="0", visible="0", health="Xid 48"), Device(id="1", visible="1"))
    assert story.tell(DevicesSeen(unwell, story.now)) == []
    assert launched(story.launch(job_id=2, spec=gpu_spec(1))) == [AttemptId(2, 0, 1)]


def test_a_job_without_gpus_sees_none() -> None:
    story = Story(gpus=2)
    (launch,) = story.launch()
    assert isinstance(launch, Launch)
    assert launch.jobs[0].tasks[0].gpus == ""


def test_a_restarted_agent_knows_which_gpus_are_bound() -> None:
    rows = (Row(AttemptId(1, 0, 1), "s1"),)
    story = Story(gpus=2)
    story.core = AgentCore(number_gpus(2))
    story.tell(Recovered(rows))
    story.meet("s1", running=(RunningAttempt(1, 0, 1, 500, "0"),))
    story.connect()
    story.assign(job_id=2, spec=gpu_spec(1))
    (launch,) = only(Launch, story.saved())
    assert isinstance(launch, Launch)
    assert launch.jobs[0].tasks[0].gpus == "1"


def test_another_supervisor_means_that_the_attempt_is_lost() -> None:
    story = Story(instance="s2", rows=(Row(AttemptId(1, 0, 1), "s1"),))
    (report,) = reported(story.connect())
    assert isinstance(report, AttemptEnded)
    assert report.kind is EndKind.LOST


def test_an_end_in_the_table_outlives_the_supervisor() -> None:
    story = Story(instance="s2", rows=(Row(AttemptId(1, 0, 1), "s1", ENDED),))
    assert reported(story.connect()) == [ENDED]


def test_an_attempt_that_never_reached_its_supervisor_is_given_back() -> None:
    """The supervisor is the one that was meant and doesn't know it: it never started, so a manager may send it again."""
    story = Story()
    story.core = AgentCore()
    story.tell(Recovered((Row(AttemptId(1, 0, 1), "s1"),)))
    assert only(Save, story.meet("s1")) == [Save(1, removed=(AttemptId(1, 0, 1),))]
    assert story.core.attempts() == ()


def test_an_end_that_the_table_does_not_know_is_reported_and_not_run_again() -> None:
    """The table was lost, and with it every trace of the attempt: the supervisor's word is enough."""
    story = Story()
    instructions = story.meet("s1", ended=(ENDED,))
    assert reported(instructions) == [ENDED]
    assert only(Forget, instructions) == []
    assert story.core.attempts() == (KEY,)
    assert story.assign() == []
    story.receive(ReportsAck(1))
    assert story.saved() == [Forget((KEY,))]


def test_an_end_that_was_acknowledged_and_is_about_to_be_forgotten_is_not_reported_again() -> None:
    story = Story()
    story.launch()
    story.happens(ENDED)
    story.receive(ReportsAck(1))
    story.tell(SupervisorDown())
    assert reported(story.meet("s1", ended=(ENDED,))) == []
    assert story.core.attempts() == ()
    assert story.saved() == [Forget((KEY,))]


def test_an_end_in_the_table_that_the_supervisor_still_holds_is_forgotten_in_the_end() -> None:
    story = Story(rows=(Row(AttemptId(1, 0, 1), "s1", ENDED),))
    story.meet("s1", ended=(ENDED,))
    story.receive(ReportsAck(1))
    assert story.saved() == [Forget((KEY,))]


def test_a_supervisor_that_comes_back_is_reminded_of_thaws() -> None:
    story = Story()
    story.launch()
    story.happens(STARTED)
    story.receive(Freeze((KEY,), True))
    story.tell(SupervisorDown())
    story.receive(Freeze((KEY,), False))  # nobody is there to hear it
    assert only(FreezeAttempts, story.meet("s1", running=(RunningAttempt(1, 0, 1, 1_000),))) == [
        FreezeAttempts((KEY,), False)
    ]


def test_what_an_agent_before_us_froze_stays_frozen() -> None:
    story = Story(rows=(Row(AttemptId(1, 0, 1), "s1"),))
    assert only(FreezeAttempts, story.meet("s1", running=(RunningAttempt(1, 0, 1, 1_000),))) == []


def test_what_runs_without_a_row_is_adopted() -> None:
    story = Story()
    story.meet("s1", running=(RunningAttempt(1, 0, 1, 500),))
    assert story.core.attempts() == (KEY,)
    assert story.core.is_active(AttemptId(1, 0, 1))


def test_nothing_is_launched_without_a_supervisor() -> None:
    story = Story()
    story.tell(SupervisorDown())
    assert launched(story.launch()) == []
    assert launched(story.meet("s2")) == [AttemptId(1, 0, 1)]


def test_a_supervisor_that_comes_back_is_reminded_of_stops() -> None:
    story = Story()
    story.launch()
    story.happens(STARTED)
    story.receive(Stop((KEY,), "cancelled"))
    story.tell(SupervisorDown())
    assert StopAttempts((KEY,), "cancelled") in story.meet("s1", running=(RunningAttempt(1, 0, 1, 1_000),))


def test_a_lease_counts_from_when_the_heartbeat_left() -> None:
    story = Story()
    assert only(Lease, story.connect(lease_ms=20_000)) == [Lease(30_000, 20_000)]
    story.tell(HeartbeatSent(1, 11_000))
    story.tell(HeartbeatSent(2, 12_000))
    story.now_ms = 15_000
    assert story.receive(HeartbeatAck(2)) == [Lease(32_000, 20_000)]
    assert story.receive(HeartbeatAck(1)) == [], "an older one renews nothing"


def test_a_spec_that_is_not_held_needs_a_new_session() -> None:
    story = Story()
    assert only(Reconnect, story.assign(spec=None))
    assert story.core.attempts() == ()


def test_a_stop_of_what_never_came_is_answered() -> None:
    story = Story()
    (report,) = reported(story.receive(Stop((KEY,), "cancelled")))
    assert isinstance(report, AttemptEnded)
    assert report.kind is EndKind.STOPPED
    story.receive(ReportsAck(1))
    assert story.core.attempts() == ()
