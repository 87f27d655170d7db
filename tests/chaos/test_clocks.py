"""Wall clocks of single processes: shifted while they run, right again by themselves, and nobody else's. Needs a C compiler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from chaos.cluster import clocks
from chaos.cluster.clocks import Control, ShimClocks, compile_shim, find_obstacle, variables
from chaos.cluster.own import OwnCluster
from chaos.errors import MachineLacks
from chaos.safety.audit import Act
from chaos.safety.ledger import Ledger
from chaos.safety.places import audit_path
from chaos.safety.traces import processes_of
from hasched.model.states import TaskState
from tests.support.cluster import eventually

MODULE = pytest.mark.asyncio(loop_scope="module")
HOUR_S = 3600.0
NEAR_S = 60.0  # what is no shift: a machine may be slow
WATCH = """\
import ctypes, datetime, json, sys, time
libc = ctypes.CDLL(None)
libc.time.restype = ctypes.c_long
class Value(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]
for line in sys.stdin:
    value = Value()
    assert libc.gettimeofday(ctypes.byref(value), None) == 0
    print(json.dumps({
        "time": time.time(),
        "time_ns": time.time_ns() / 1e9,
        "datetime": datetime.datetime.now(datetime.UTC).timestamp(),
        "CLOCK_REALTIME_COARSE": time.clock_gettime(5),
        "libc time": libc.time(None),
        "gettimeofday": value.seconds + value.microseconds / 1e6,
        "monotonic": time.monotonic(),
        "boot": time.clock_gettime(time.CLOCK_BOOTTIME),
    }), flush=True)
"""
WALL = ("time", "time_ns", "datetime", "CLOCK_REALTIME_COARSE", "libc time", "gettimeofday")
LOOP = """\
import asyncio, sys, uvloop
async def main():
    print("asleep", flush=True)
    await asyncio.sleep(0.2)
    async with asyncio.timeout(30):
        await asyncio.to_thread(sys.stdin.readline)
    print("awake", flush=True)
(uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
"""


class Watch:
    """A process under the shim, asked for its clocks."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCH],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found

    def shifts(self) -> dict[str, float]:
        """How far each of its wall clocks is from the machine's."""
        read = self.read()
        now_s = time.time()
        return {name: read[name] - now_s for name in WALL}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path / "control")


@pytest.fixture
def watch(shim: Path, control: Control) -> Iterator[Watch]:
    made = Watch(variables(shim, control))
    with made.process:
        yield made
        made.process.kill()


def near(shift_s: float) -> object:
    return pytest.approx(shift_s, abs=NEAR_S)


def test_a_wall_clock_jumps_while_its_process_runs_and_back(watch, control):
    assert watch.shifts() == dict.fromkeys(WALL, near(0))
    for jump_s in (HOUR_S, -HOUR_S, 400 * 86_400.0):
        control.shift(jump_s, 0.0, 600)
        assert watch.shifts() == dict.fromkeys(WALL, near(jump_s))
    control.clear()
    assert watch.shifts() == dict.fromkeys(WALL, near(0))


def test_the_other_clocks_are_the_machines(watch, control):
    control.shift(HOUR_S, 10.0, 600)
    before = (time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
    read = watch.read()
    after = (time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
    assert before[0] <= read["monotonic"] <= after[0]
    assert before[1] <= read["boot"] <= after[1]


def test_a_wall_clock_drifts(watch, control):
    """So fast that a shift which no slow machine explains comes at once."""
    begun_s = time.monotonic()
    control.shift(0.0, 50_000.0, 600)
    eventually("an hour to pass", lambda: min(watch.shifts().values()) > HOUR_S)
    assert max(watch.shifts().values()) <= 50_000 * (time.monotonic() - begun_s)


def test_a_clock_may_stand_still_or_run_backwards(watch, control):
    control.shift(0.0, -3.0, 600)
    first = watch.read()["time"]
    eventually("the clock to have gone back", lambda: watch.read()["time"] < first - 1)


def test_a_shift_ends_by_itself(watch, control):
    control.shift(HOUR_S, 0.0, 0.5)
    eventually("the right time", lambda: max(watch.shifts().values()) < NEAR_S)


def test_a_process_that_starts_while_its_clock_is_shifted_starts_with_that(watch, control, shim):
    control.shift(-HOUR_S, 0.0, 600)
    late = Watch(variables(shim, Control(control.path)))
    with late.process:
        assert late.shifts() == dict.fromkeys(WALL, near(-HOUR_S))
        late.process.kill()


def test_a_process_without_a_control_file_has_the_machines_clock(tmp_path, shim):
    for environment in ({}, {clocks.CONTROL: str(tmp_path / "none")}, {clocks.CONTROL: os.devnull}):
        lone = Watch({"LD_PRELOAD": str(shim), **environment})
        with lone.process:
            assert lone.shifts() == dict.fromkeys(WALL, near(0))
            lone.process.kill()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_an_event_loop_sleeps_as_long_as_it_was_told_though_the_clock_jumps(shim, control, loop, jump_s):
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, loop],
        env={**os.environ, **variables(shim, control)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as sleeper:
        assert sleeper.stdout is not None and sleeper.stdin is not None
        assert sleeper.stdout.readline() == "asleep\n"
        control.shift(jump_s, 0.0, 600)
        print(file=sleeper.stdin, flush=True)
        assert sleeper.stdout.readline() == "awake\n"


def test_this_machine_offers_clocks():
    assert find_obstacle() is None


def test_without_a_compiler_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_obstacle() == "there is no C compiler (cc) to make the clock shim with"
    with pytest.raises(MachineLacks) as lacking:
        compile_shim(tmp_path)
    assert "scripts/packages" in lacking.value.hint


def test_a_probe_that_is_killed_leaves_nothing_behind(tmp_path):
    """By the compiler, here: it is always the same moment."""
    compiler, temporary = tmp_path / "cc", tmp_path / "tmp"
    compiler.write_text("#!/bin/sh\nkill -KILL $PPID\n")
    compiler.chmod(0o755)
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "from chaos.cluster import clocks; clocks.find_obstacle()"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(temporary)},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert list(temporary.iterdir()) == []


def test_what_is_preloaded_already_stays(monkeypatch, control):
    monkeypatch.setenv("LD_PRELOAD", "/lib/other.so")
    assert variables(Path("/shim.so"), control)["LD_PRELOAD"] == "/shim.so:/lib/other.so"


# --- the clocks of a cluster ---


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(ledger: Ledger) -> AsyncIterator[OwnCluster]:
    async with OwnCluster(ledger, managers=1, agents=1) as made:
        await made.ready()
        yield made


@MODULE
async def test_tasks_of_an_agent_with_another_clock_have_the_machines(cluster):
    async with cluster.clocks.shifted("n1", -HOUR_S, 0.0, 60), cluster.client() as client:
        begun_s = time.time()
        submitted = await client.submit({"name": "look", "command": ["sh", "-c", "date +%s; env"]})
        await client.wait(submitted.id, 60)
        task = await client.task(submitted.id, 0)
        assert task.state == TaskState.SUCCEEDED.name
        said = b"".join([piece async for piece in client.logs(submitted.id)]).decode()
        seconds, *environment = said.splitlines()
        assert int(seconds) >= int(begun_s)
        supervisors = [
            each for each in processes_of(str(cluster.data_dir("n1"))) if each.pid != cluster.processes.pid("n1")
        ]
        environment += [Path(f"/proc/{each.pid}/environ").read_text() for each in supervisors]
        assert supervisors
        assert not [text for text in environment if "LD_PRELOAD" in text or clocks.CONTROL in text]


@MODULE
async def test_the_state_goes_by_the_clock_of_the_manager_that_leads(cluster, ledger):
    async with cluster.client() as client:
        async with cluster.clocks.shifted("m1", 2 * HOUR_S, 0.0, 60):
            submitted = await client.submit({"name": "later", "command": ["true"]})
            job = await client.job(submitted.id)
            assert job.submitted_ms / 1000 - time.time() == near(2 * HOUR_S)
    said = [json.loads(line) for line in audit_path().read_text().splitlines()]
    what = {Act(line["act"]): line["what"] for line in said if "clock of m1" in line["what"]}
    assert "+7200 s" in what[Act.STRIKE]
    assert "right again" in what[Act.UNDO]


@MODULE
async def test_a_shift_that_is_not_noted_does_not_happen(cluster, ledger, tmp_path):
    refused = ShimClocks(ledger, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.audit, "write", _refuse)
        with pytest.raises(OSError, match="full"):
            async with refused.shifted("m1", HOUR_S, 0.0, 60):
                raise AssertionError("it was not noted")
    watch = Watch(variables(compile_shim(tmp_path), Control(tmp_path / "m1.clock")))
    with watch.process:
        assert watch.shifts() == dict.fromkeys(WALL, near(0))
        watch.process.kill()


def _refuse(*_: object) -> None:
    raise OSError("full")
