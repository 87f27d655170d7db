"""Each drill is played once on a real cluster, and passes; with bugs put back into the product, drills fail and say why."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from chaos.abilities import Ability
from chaos.cluster.attached import AttachedCluster
from chaos.cluster.base import Cluster
from chaos.cluster.own import OwnCluster
from chaos.drills.base import Drill
from chaos.drills.leader_kill import LeaderKill
from chaos.drills.old_log_new_code import names, refusal
from chaos.drills.play import FAILED, LEFT_OUT, PASSED, play
from chaos.drills.scene import Scene
from chaos.errors import ConsentMissing, MachineLacks
from chaos.registry import Registry
from chaos.report.document import DrillPart
from chaos.safety.ledger import Ledger
from chaos.stage import Skipped
from hasched.model.errors import NoLeader

pytestmark = pytest.mark.timeout(240)

DRILLS = Registry().drills
NAMES = (
    "agent-restart",
    "all-down-new-addresses",
    "black-hole-node",
    "clean-agent-stop",
    "dst-hour",
    "fleet-declared-dead",
    "grandchildren-survive",
    "held-gpu-vanishes",
    "launch-rejected",
    "leader-kill",
    "lost-completion-report",
    "mass-submission",
    "old-log-new-code",
    "partition-then-heal",
    "re-election-stops-cron",
    "restart-leaves-running",
    "second-bootstrap",
    "slot-leak",
    "stale-report",
)
MUTATED = str(Path(__file__).resolve().parent.parent / "support" / "mutated.py")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    with Ledger.open("a drill's", command="the tests") as opened:
        yield opened


async def play_on_own(drill: Drill, ledger: Ledger, hasched: list[str] | None = None) -> DrillPart:
    def make() -> AbstractAsyncContextManager[Cluster]:
        return OwnCluster(
            ledger,
            drill.managers,
            drill.agents,
            settings=drill.settings,
            agent_settings=drill.agent_settings,
            hasched=hasched or (),
        )

    return await play(drill, make)


def told(part: DrillPart) -> str:
    """For a person who looks at a failed test."""
    logs = [f"==== {name}\n{log}" for name, log in part.logs.items()]
    return "\n".join([f"{part.name} {part.verdict}: {part.why}", *part.evidence, *logs])


def test_every_failure_that_others_had_has_a_drill() -> None:
    assert tuple(DRILLS) == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_the_product_passes(name: str, ledger: Ledger) -> None:
    part = await play_on_own(DRILLS[name], ledger)
    if part.verdict == LEFT_OUT and os.geteuid() != 0:
        pytest.skip(part.why)  # faults of networks and disks are for root
    assert part.verdict == PASSED, told(part)
    assert part.evidence
    assert part.why == ""


@pytest.mark.parametrize(
    ("bug", "name", "says"),
    [
        pytest.param("grace-not-fresh", "fleet-declared-dead", "no node is given up", id="a new leader judges at once"),
        pytest.param("fence-not-checked", "stale-report", "goes on as attempt 2", id="any attempt decides"),
        pytest.param("wiped-disk-votes", "second-bootstrap", "accepts nothing", id="a blank disk has a vote"),
    ],
)
async def test_a_product_with_a_bug_fails(bug: str, name: str, says: str, ledger: Ledger) -> None:
    if Ability.DISKS in DRILLS[name].needs and os.geteuid() != 0:
        pytest.skip("disks of their own are for root")
    part = await play_on_own(DRILLS[name], ledger, [sys.executable, MUTATED, bug])
    assert part.verdict == FAILED, told(part)
    assert says in part.why, told(part)
    assert part.logs.keys() == {"m1", "m2", "m3", "n1", "n2"}


class _Drill(Drill):
    name = "of-this-test"
    happened = "nothing"
    expects = "nothing"
    agents = 0
    managers = 1


class Hanging(_Drill):
    async def play(self, scene: Scene) -> None:
        async def never() -> bool:
            return False

        scene.show("it hangs")
        await scene.eventually("what never comes", never)


class Refused(_Drill):
    async def play(self, scene: Scene) -> None:
        raise NoLeader("nobody leads", "wait")


class Lacking(_Drill):
    needs = (Ability.CLOCKS,)

    async def play(self, scene: Scene) -> None:
        raise AssertionError("it can't be played")


async def test_a_drill_that_hangs_is_ended_and_its_cluster_goes(ledger: Ledger) -> None:
    drill, clusters = Hanging(), list[OwnCluster]()

    def make() -> OwnCluster:
        clusters.append(OwnCluster(ledger, 1, 0, on_loopback=True))
        return clusters[-1]

    part = await play(drill, make, limit_s=0.5)
    assert (part.verdict, part.why) == (FAILED, "it was not over after 0.5 s")
    assert [line.partition("s  ")[2] for line in part.evidence] == ["it hangs"]
    assert "manager_started" in part.logs["m1"]
    assert clusters[0].processes.pid("m1") is None
    assert not clusters[0].folder.exists()


async def test_an_error_of_the_api_fails_a_drill_with_its_code(ledger: Ledger) -> None:
    part = await play(Refused(), lambda: OwnCluster(ledger, 1, 0, on_loopback=True))
    assert (part.verdict, part.why) == (FAILED, "no_leader: nobody leads (wait)")


async def test_what_the_machine_lacks_leaves_a_drill_out(ledger: Ledger) -> None:
    class Poor(OwnCluster):
        async def __aenter__(self) -> OwnCluster:
            await super().__aenter__()
            self.missing[Ability.CLOCKS] = "there is no compiler"
            return self

    part = await play(Lacking(), lambda: Poor(ledger, 1, 0, on_loopback=True))
    assert part.verdict == LEFT_OUT
    assert part.why.endswith("can't be had here: there is no compiler")

    def make() -> OwnCluster:
        raise MachineLacks("there is no network")

    assert (await play(Lacking(), make)).why == "there is no network"
    part = await play(LeaderKill(), lambda: OwnCluster(ledger, 1, 0, on_loopback=True))
    assert (part.verdict, part.why) == (LEFT_OUT, "it needs 3 managers, and chaos has 1")


@pytest.mark.parametrize(("begun", "verdict"), [(False, LEFT_OUT), (True, FAILED)])
async def test_a_drill_that_breaks_off_is_left_out_only_if_nothing_was_done(
    begun: bool, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BreakingOff(_Drill):
        async def play(self, scene: Scene) -> None:
            if begun:
                scene.show("SIGKILL to m1")
            raise Skipped("m1 is down")

    async def whole(scene: Scene) -> None:
        return

    monkeypatch.setattr("chaos.drills.play.until_whole", whole)
    cluster = SimpleNamespace(managers=["m1"], agents=[], require=lambda needs: None, client=nullcontext, logs=dict)
    part = await play(BreakingOff(), lambda: nullcontext(cluster))  # type: ignore[arg-type]
    assert part.verdict == verdict
    assert part.why.endswith("m1 is down")


async def test_drills_can_be_played_one_after_the_other_on_a_running_cluster(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Looking(_Drill):
        needs = ()

        async def play(self, scene: Scene) -> None:
            scene.show(f"{scene.cluster.kind} {Path(scene.cluster.scratch).is_dir()}")

    async with OwnCluster(ledger, 1, 0, on_loopback=True) as running:
        await running.ready()
        context = running.context()
        monkeypatch.setenv("HASCHED_MANAGERS", ",".join(context.managers))
        monkeypatch.setenv("HASCHED_CA", context.ca)
        monkeypatch.setenv("HASCHED_TOKEN", context.token)
        for _ in range(2):
            part = await play(Looking(), lambda: AttachedCluster.attached(None, ledger))
            assert part.verdict == PASSED, told(part)
            assert part.evidence[0].endswith("attached True")


async def test_without_consent_nothing_is_played(ledger: Ledger) -> None:
    async def refuse(_: Cluster) -> None:
        raise ConsentMissing("nobody typed its name")

    with pytest.raises(ConsentMissing):
        await play(LeaderKill(), lambda: OwnCluster(ledger, 1, 0, on_loopback=True), refuse)


def test_why_a_manager_stopped_is_read_from_what_it_wrote_since_it_was_started() -> None:
    before = "12:00 manager_started\n12:01 manager_failed cause=entry 12 is of kind 99\n12:02 manager_started"
    after = f"{before}\n12:03 manager_failed cause=entry 13 is of version 2\n\n(ended with 1)"
    assert refusal(before, after).endswith("entry 13 is of version 2")
    assert refusal(before, f"{before}\n12:03 killed") == "12:03 killed"
    assert refusal(before, before) == ""


@pytest.mark.parametrize(("line", "is_named"), [("entry 12 is of kind 99", True), ("entry 123 is of kind 99", False)])
def test_an_entry_is_not_taken_for_one_whose_number_begins_alike(line: str, is_named: bool) -> None:
    assert names(line, "entry 12") is is_named
