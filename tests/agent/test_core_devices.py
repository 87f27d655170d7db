"""The agent's decisions about GPUs: who gets which, and what becomes of who loses one."""

from __future__ import annotations

import pytest

from hasched.agent.core import AgentCore
from hasched.agent.devices import Device, number_gpus
from hasched.agent.events import (
    CheckDevices,
    DevicesSeen,
    Recovered,
    Row,
)
from hasched.agent.protocol import (
    Launch,
    RunningAttempt,
    StopAttempts,
)
from hasched.model.ids import AttemptId
from hasched.model.states import EndKind
from hasched.model.wire import (
    AttemptEnded,
    AttemptKey,
    Freeze,
    Stop,
)
from tests.agent.story import ENDED, KEY, STARTED, Story, gpu_spec, launched, only, reported


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
