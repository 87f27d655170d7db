"""Tasks that pretend keep the supervisor's promises: one end for each, told again until it is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hasched.agent.pretend.tasks import PretendTasks, pretended_end
from hasched.agent.processes import boot_ms
from hasched.agent.protocol import (
    Configure,
    Forget,
    FreezeAttempts,
    FromSupervisor,
    Inventory,
    Launch,
    LaunchJob,
    LaunchTask,
    Lease,
    Observed,
    StopAttempts,
)
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, AttemptKey, AttemptReport, AttemptStarted

SETTINGS = Configure("s1", "/bin", 0, False, 0)
KEY = AttemptKey(1, 0, 1)


def job(command: tuple[str, ...] = ("sleep", "1000"), **other: Any) -> LaunchJob:
    given: dict[str, Any] = {
        "job_id": 1, "name": "x", "count": 1, "command": command, "script": "", "env": {}, "working_dir": "",
        "input": b"", "cpu_milli": 0, "memory_bytes": 0, "timeout_ms": 0, "kill_grace_ms": 0, "stop_at_lease": False,
        "tasks": (LaunchTask(0, 1),),
    }  # fmt: skip
    return LaunchJob(**{**given, **other})


class Ear:
    """An agent that hears what the supervisor says."""

    def __init__(self, tasks: PretendTasks) -> None:
        self.heard: asyncio.Queue[FromSupervisor] = asyncio.Queue()
        tasks.connect(SETTINGS, lambda messages: [self.heard.put_nowait(each) for each in messages] and None)

    async def inventory(self) -> Inventory:
        message = await self.heard.get()
        assert isinstance(message, Inventory)
        return message

    async def reports(self) -> tuple[AttemptReport, ...]:
        message = await self.heard.get()
        assert isinstance(message, Observed)
        return message.reports

    async def end(self) -> AttemptEnded:
        while True:
            for report in await self.reports():
                if isinstance(report, AttemptEnded):
                    return report


@pytest.mark.parametrize(
    ("command", "env", "end"),
    [
        (("/bin/sleep", "2"), {}, (2000, 0)),
        (("sleep", "1m"), {}, (60_000, 0)),
        (("sleep", "never"), {}, (0, 0)),
        (("sleep", "1", "2"), {}, (0, 0)),
        (("false",), {}, (0, 1)),
        (("train",), {"SIMULATED_DURATION": "1h", "SIMULATED_EXIT_CODE": "3"}, (3_600_000, 3)),
        (("sleep", "9"), {"SIMULATED_DURATION": "1"}, (1000, 0)),
        (("true",), {"SIMULATED_DURATION": "soon", "SIMULATED_EXIT_CODE": "256"}, (0, 0)),
        ((), {}, (0, 0)),
    ],
)
def test_a_job_says_how_long_it_pretends(command, env, end):
    assert pretended_end(job(command, env=env)) == end


async def test_an_end_is_kept_until_it_is_forgotten() -> None:
    tasks = PretendTasks("one")
    ear = Ear(tasks)
    assert (await ear.inventory()).ended == ()
    tasks.send([Launch((job(("false",)),))])
    assert [type(each) for each in await ear.reports()] == [AttemptStarted]
    ended = await ear.end()
    assert (ended.kind, ended.code) == (EndKind.EXITED, 1)
    later = Ear(tasks)
    assert (await later.inventory()).ended == (ended,)
    tasks.send([Launch((job(("false",)),)), Forget((KEY,))])  # what has ended isn't started again
    assert (await Ear(tasks).inventory()).ended == ()


async def test_what_runs_is_stopped_once() -> None:
    tasks = PretendTasks("one")
    ear = Ear(tasks)
    tasks.send([Launch((job(),))])
    await ear.inventory()
    tasks.send([StopAttempts((KEY,), "enough"), StopAttempts((KEY,), "once more")])
    ended = await ear.end()
    assert (ended.kind, ended.reason) == (EndKind.STOPPED, "enough")
    assert (await Ear(tasks).inventory()).ended == (ended,)


async def test_a_timeout_is_shorter_than_the_task() -> None:
    tasks = PretendTasks("one")
    ear = Ear(tasks)
    tasks.send([Launch((job(timeout_ms=20),))])
    await ear.inventory()
    assert (await ear.end()).kind is EndKind.TIMED_OUT


async def test_a_frozen_task_stands_still() -> None:
    tasks = PretendTasks("one")
    ear = Ear(tasks)
    frozen, other = job(("sleep", "50ms")), job(("sleep", "300ms"), job_id=2)
    tasks.send([Launch((frozen, other)), FreezeAttempts((KEY,), True)])
    await ear.inventory()
    assert (await ear.end()).job_id == 2
    tasks.send([FreezeAttempts((KEY,), False)])
    assert (await ear.end()).job_id == 1


async def test_a_lease_that_nobody_renews_ends_what_depends_on_it() -> None:
    tasks = PretendTasks("one")
    ear = Ear(tasks)
    tasks.send([Launch((job(stop_at_lease=True), job(job_id=2))), Lease(boot_ms() + 20, 20)])
    await ear.inventory()
    ended = await ear.end()
    assert (ended.job_id, ended.kind) == (1, EndKind.STOPPED)
    assert [run.job_id for run in (await Ear(tasks).inventory()).running] == [2]
