"""The agent's decisions, one by one: no process, no clock, no disk."""

from __future__ import annotations

import msgspec

from hasched.agent.core import SAVE_END_DELAY_MS, AgentCore
from hasched.agent.events import (
    Disconnected,
    HeartbeatSent,
    Reconnect,
    Recovered,
    Row,
    Save,
    SaveFailed,
    Send,
    SupervisorDown,
    Tick,
)
from hasched.agent.outbox import MAX_REPORTS, REPORTS_IN_FLIGHT, START_REPORT_DELAY_MS
from hasched.agent.protocol import (
    MAX_REASON,
    Forget,
    FreezeAttempts,
    Launch,
    LaunchTask,
    Lease,
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
    AttemptStarted,
    Freeze,
    HeartbeatAck,
    Reports,
    ReportsAck,
    Stop,
)
from tests.agent.story import ENDED, KEY, SPEC, STARTED, Story, launched, only, reported


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
