"""A cluster that the harness made: its hosts and disks, what can be done to its daemons, and that it leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from chaos.abilities import Ability
from chaos.cluster import members
from chaos.cluster.own import OwnCluster
from chaos.errors import MachineLacks, Unsettled
from chaos.safety.identity import Born, born, is_alive, is_stopped
from chaos.safety.ledger import Ledger
from chaos.safety.traces import processes_of
from hasched.model.errors import ClusterUnreachable
from tests.support.leftovers import traces_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE_S = 30.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(ledger: Ledger) -> AsyncIterator[OwnCluster]:
    async with OwnCluster(ledger) as made:
        await made.ready()
        yield made


async def until(what: str, probe: Callable[[], object]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not probe():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


async def run_sleeper(cluster: OwnCluster) -> tuple[str, Born]:
    """A task that runs: its node and its process."""
    note = Path(cluster.scratch) / f"sleeper-{uuid.uuid4().hex}"
    command = ["/bin/sh", "-c", f"echo $HASCHED_NODE $$ > {note}.new; mv {note}.new {note}; exec sleep 600"]
    async with cluster.client() as client:
        await client.submit({"name": "sleeper", "command": command, "resources": {"cpu": "100m"}})
    await until("the task to run", note.exists)
    node, pid = note.read_text().split()
    process = born(int(pid))
    assert process is not None
    return node, process


@needs_root
async def test_each_daemon_has_a_host_and_a_disk_of_its_own(cluster: OwnCluster) -> None:
    names = [*cluster.managers, *cluster.agents]
    assert names == ["m1", "m2", "m3", "n1", "n2"]
    namespaces = {Path(f"/proc/{cluster.processes.pid(name)}/ns/net").readlink() for name in names}
    assert len(namespaces | {Path("/proc/self/ns/net").readlink()}) == 6
    devices = {cluster.data_dir(name).stat().st_dev for name in names}
    assert len(devices | {cluster.folder.stat().st_dev}) == 6


async def test_a_client_reaches_it_and_it_is_marked_as_one_to_be_broken(cluster: OwnCluster) -> None:
    async with cluster.client() as client:
        assert (await client.cluster()).test_cluster


async def test_a_daemon_that_ended_by_itself_is_known_to_be_down(cluster: OwnCluster) -> None:
    pid, restarts = cluster.processes.pid("m1"), cluster.processes.restarts("m1")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)  # not by the harness
    await until("its end", lambda: cluster.processes.pid("m1") is None)
    assert "(ended with -9)" in cluster.logs()["m1"]
    await cluster.processes.start("m1")
    await cluster.processes.start("m1")  # it is there: nothing to do
    assert cluster.processes.pid("m1") not in (None, pid)
    assert cluster.processes.restarts("m1") == restarts + 1
    assert "ended with" not in cluster.logs()["m1"]
    await cluster.ready()


async def test_a_frozen_daemon_stands_still_until_it_is_let_go(cluster: OwnCluster) -> None:
    process = born(cluster.processes.pid("m2") or 0)
    assert process is not None
    async with cluster.processes.frozen("m2", 60):
        assert is_stopped(process)
    assert is_alive(process)
    assert not is_stopped(process)
    await cluster.processes.kill("m2")
    with pytest.raises(Unsettled, match="m2 is down"):
        async with cluster.processes.frozen("m2", 60):
            pass
    await cluster.processes.start("m2")


async def test_a_manager_that_is_told_to_stop_ends_cleanly(cluster: OwnCluster) -> None:
    assert await cluster.processes.terminate("m3") == 0
    assert cluster.processes.pid("m3") is None
    await cluster.processes.start("m3")


async def test_one_that_does_not_stop_in_time_is_said_to_run_on(cluster: OwnCluster) -> None:
    async with cluster.processes.frozen("m3", 60):
        with pytest.raises(Unsettled, match="m3 still runs"):
            await cluster.processes.terminate("m3", patience_s=0.1)
    await until("its end, now that it can", lambda: cluster.processes.pid("m3") is None)
    await cluster.processes.start("m3")


async def test_tasks_outlive_their_agent_and_end_with_their_node(cluster: OwnCluster) -> None:
    await cluster.ready()
    node, task = await run_sleeper(cluster)
    async with cluster.processes.orphaned(node, 60):
        assert cluster.processes.pid(node) is None
        left = processes_of(str(cluster.data_dir(node)))
        assert task in left
        assert len(left) > 1, "the supervisor is there too"
    assert is_alive(task)
    old = born(cluster.processes.pid(node) or 0)
    await cluster.processes.reboot(node)
    assert not any(is_alive(process) for process in left)
    assert born(cluster.processes.pid(node) or 0) not in (None, old)
    await cluster.ready()


async def test_a_manager_comes_and_another_goes(cluster: OwnCluster) -> None:
    await cluster.ready()
    assert await cluster.members.add() == "m4"
    async with cluster.client("m4") as client:  # it serves by itself
        members = {each.id: each.membership for each in (await client.managers()).managers}
    assert members == dict.fromkeys(["m1", "m2", "m3", "m4"], "voter")
    await cluster.members.remove("m1")
    assert cluster.managers == ["m2", "m3", "m4"]
    async with cluster.client() as client:
        assert sorted(each.id for each in (await client.managers()).managers) == ["m2", "m3", "m4"]
    assert not processes_of(str(cluster.data_dir("m1")))
    await cluster.ready()


async def test_a_manager_that_nobody_takes_in_is_gone_again(cluster: OwnCluster) -> None:
    before = list(cluster.managers)
    for name in before:
        await cluster.processes.kill(name)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ClusterUnreachable):
        patch.setattr(members, "CHANGE_S", 0.2)
        await cluster.members.add()
    assert cluster.managers == before
    assert len(cluster.context().managers) == len(before)
    assert not [each for each in processes_of(str(cluster.folder)) if "m5" in _command(each)]
    for name in before:
        await cluster.processes.start(name)
    await cluster.ready()


def _command(process: Born) -> str:
    return Path(f"/proc/{process.pid}/cmdline").read_text()


async def test_every_harm_is_in_the_audit_log(cluster: OwnCluster) -> None:
    await cluster.processes.kill("n2")
    await cluster.processes.start("n2")
    await cluster.processes.kill_group("n2")
    assert cluster.processes.pid("n2") is None
    async with cluster.processes.frozen("n1", 60):
        pass
    lines = (Path(os.environ["HASCHED_STATE_DIR"]) / "chaos" / "audit.jsonl").read_text()
    assert 'SIGKILL to n2"' in lines
    assert "SIGKILL to n2 and its process group" in lines
    assert "SIGSTOP to n1" in lines
    await cluster.processes.start("n2")


async def test_one_that_does_not_get_ready_says_what_its_daemons_said_last(ledger: Ledger) -> None:
    """Its folder is gone by the time that somebody looks."""
    broken = [sys.executable, "-c", "raise SystemExit('the cause')"]
    async with OwnCluster(ledger, managers=1, agents=1, hasched=broken, on_loopback=True) as cluster:
        await until("their ends", lambda: len(cluster.daemons.dead()) == 2)
        with pytest.raises(Unsettled, match="n1 ended with 1, and said last: the cause"):
            await cluster.ready(patience_s=0.1)


# --- nothing is left ---


async def test_leaving_it_leaves_nothing(ledger: Ledger) -> None:
    others = traces_of(ledger.run_id)
    async with OwnCluster(ledger, managers=1, agents=1) as cluster:
        await cluster.ready()
        await run_sleeper(cluster)
        assert len(traces_of(ledger.run_id)) > len(others)
        await cluster.processes.kill("n1")  # its supervisor and its task are on their own
        manager = cluster.processes.frozen("m1", 60)
        await manager.__aenter__()  # nobody thaws it
    assert traces_of(ledger.run_id) == others
    assert cluster.hosts is None or not (Path("/sys/class/net") / cluster.hosts.outside).exists()


async def test_an_error_in_the_middle_of_setting_up_leaves_nothing(ledger: Ledger) -> None:
    others = traces_of(ledger.run_id)
    with pytest.raises(Exception, match="cannot represent"):  # once hosts and disks are there
        async with OwnCluster(ledger, managers=1, agents=1, agent_settings={"name": object()}):
            pass
    assert traces_of(ledger.run_id) == others


@pytest.mark.parametrize(
    "there",
    [
        pytest.param("folder", id="as its folder is made"),
        pytest.param("process", id="as its first daemon is started"),
    ],
)
async def test_cancelled_while_it_is_set_up_it_leaves_nothing(ledger: Ledger, there: str) -> None:
    others = traces_of(ledger.run_id)
    cluster = OwnCluster(ledger, managers=1, agents=1)
    entering = asyncio.create_task(cluster.__aenter__())
    try:
        while not (cluster.folder.exists() if there == "folder" else cluster.processes.pid("m1")):
            await asyncio.sleep(0)  # no pause: it is over in a moment
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert traces_of(ledger.run_id) == others
    finally:
        await cluster.__aexit__(None, None, None)


# --- without root ---

UNPRIVILEGED = """
    import asyncio
    from chaos.abilities import Ability
    from chaos.cluster.own import OwnCluster
    from chaos.errors import MachineLacks
    from chaos.safety.ledger import Ledger

    async def main():
        with Ledger.open("chaos", command="test") as ledger:
            async with OwnCluster(ledger, managers=3, agents=1) as cluster:
                await cluster.ready()
                async with cluster.processes.down("m1", 60):
                    pass
                await cluster.processes.reboot("n1")
                await cluster.ready()
                try:
                    cluster.network
                except MachineLacks as error:
                    print(error.cause)
                try:
                    cluster.disks
                except MachineLacks as error:
                    print(error.cause)
                print(ledger.run_id)
        print(ledger.left)

    asyncio.run(main())
"""


async def test_without_root_daemons_can_be_killed_and_the_rest_is_said_to_be_missing(tmp_path: Path) -> None:
    as_nobody = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    done = await asyncio.to_thread(
        lambda: subprocess.run(
            [*as_nobody, sys.executable, "-c", textwrap.dedent(UNPRIVILEGED)],
            env={**os.environ, "HASCHED_STATE_DIR": str(tmp_path / "state")},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    )
    assert done.returncode == 0, done.stderr
    network, disks, run_id, left = done.stdout.splitlines()
    assert network.startswith("cuts between its hosts can't be had here: network namespaces need root; run")
    assert disks.startswith(
        "disks of its own for each manager can't be had here: file systems on loop devices need root"
    )
    assert left == "[]"
    assert traces_of(run_id) == []


async def test_on_loopback_it_has_no_network_of_its_own(ledger: Ledger) -> None:
    cluster = OwnCluster(ledger, on_loopback=True)
    with pytest.raises(MachineLacks, match="as was asked for"):
        cluster.require([Ability.CUTS])


async def test_a_folder_that_is_there_already_is_somebody_elses_and_stays(ledger: Ledger) -> None:
    cluster = OwnCluster(ledger, on_loopback=True)
    cluster.folder.mkdir()
    try:
        with pytest.raises(MachineLacks, match="is there already"):
            async with cluster:
                pytest.fail("it must not be used")
        assert cluster.folder.exists()
    finally:
        cluster.folder.rmdir()
