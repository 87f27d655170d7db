"""A real agent on a machine with GPUs: what it offers and binds, and what it does when they break. The driver is a fake one.

`hasched agent devices` is run with the real one, too, where there is a GPU.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from tests.agent.gpus import WHY_NOT_REAL, fake, fake_library, has_real_gpu  # noqa: F401
from tests.agent.peer import AgentProcess, Peer
from tests.agent.test_running import shell
from tests.support.fake_nvml import FakeNvml, Gpu

SHOW = "echo $CUDA_VISIBLE_DEVICES; echo $HASCHED_DEVICES"
REFRESH = {"refresh": 50}


def asking(script: str, gpus: int = 0, **countables: int) -> JobSpec:
    return shell(script, resources=Resources(gpus=gpus, countables=tuple(sorted(countables.items()))))


async def start(agent: AgentProcess, fake: FakeNvml, *gpus: Gpu, **devices: object) -> None:  # noqa: F811
    fake.gpus = list(gpus)
    fake.write()
    agent.settings = {"devices": {**REFRESH, **devices}}
    await agent.start()


async def test_gpus_are_offered_with_their_links_and_bound_by_number(
    agent: AgentProcess,
    peer: Peer,
    fake: FakeNvml,  # noqa: F811
) -> None:
    await start(agent, fake, Gpu("GPU-A", links=0), Gpu("GPU-B"), Gpu("GPU-C", links=0))
    ended = await peer.run(asking(SHOW, gpus=2))
    info = peer.hellos[0].info
    assert (info.resources.gpus, [gpu.nvlink_group for gpu in info.gpus]) == (3, [0, -1, 0])
    assert (await peer.log_of(ended)).decode().split() == ["0,2", "gpu=GPU-A,GPU-C"]


async def test_mig_instances_and_shares_are_offered_as_countables_and_bound(
    agent: AgentProcess,
    peer: Peer,
    fake: FakeNvml,  # noqa: F811
) -> None:
    partitioned = Gpu("GPU-A", instances={"MIG-1": "1g.10gb", "MIG-2": "1g.10gb"})
    await start(agent, fake, partitioned, Gpu("GPU-B"), Gpu("GPU-C"), gpu_shares=2, shared_gpus=["GPU-C"])
    ended = await peer.run(asking(SHOW, **{"mig-1g.10gb": 1}))
    info = peer.hellos[0].info
    assert (info.resources.gpus, info.resources.countables) == (1, (("gpu-share", 2), ("mig-1g.10gb", 2)))
    assert (await peer.log_of(ended)).decode().split() == ["MIG-1", "mig-1g.10gb=MIG-1"]
    ended = await peer.run(asking(SHOW, **{"gpu-share": 1}))
    assert (await peer.log_of(ended)).decode().split() == ["2", "gpu-share=GPU-C/0"]


async def test_a_gpu_that_disappears_ends_what_holds_it_and_the_managers_are_told(
    agent: AgentProcess,
    peer: Peer,
    fake: FakeNvml,  # noqa: F811
) -> None:
    await start(agent, fake, Gpu("GPU-A"), Gpu("GPU-B"))
    for job_id in (1, 2):
        await peer.assign(job_id, asking("exec sleep 60", gpus=1))
        await peer.started(job_id, 0, 1)
    fake.gpus[0].lost = True
    fake.write()
    ended = await peer.ended(1, 0, 1)
    assert (ended.kind, ended.reason) == (EndKind.DEVICE_LOST, "a GPU that it held is gone: GPU-A")
    await peer.until(lambda: peer.hellos[-1].info.resources.gpus == 1)
    assert peer.ends(2, 0, 1) == []
    fake.gpus[0].lost = False
    fake.write()
    await peer.until(lambda: peer.hellos[-1].info.resources.gpus == 2)


async def test_a_task_that_fails_because_its_gpu_is_gone_is_not_to_blame(
    agent: AgentProcess,
    peer: Peer,
    fake: FakeNvml,  # noqa: F811
) -> None:
    """It notices long before the agent looks again, which it does once an hour here."""
    await start(agent, fake, Gpu("GPU-A"), refresh=3_600_000)
    state = fake.folder / "state"
    ended = await peer.run(asking(f"sed -i 's/ 0 NVIDIA/ 1 NVIDIA/' {state}; exit 7", gpus=1))
    assert (ended.kind, ended.reason) == (EndKind.DEVICE_LOST, "a GPU that it held is gone: GPU-A")
    await peer.until(lambda: peer.hellos[-1].info.resources.gpus == 0)  # on a new stream
    failed = await peer.run(asking("exit 7"))
    assert (failed.kind, failed.code) == (EndKind.EXITED, 7)


async def test_a_gpu_that_is_unwell_is_offered_no_more_and_keeps_its_task(
    agent: AgentProcess,
    peer: Peer,
    fake: FakeNvml,  # noqa: F811
) -> None:
    await start(agent, fake, Gpu("GPU-A"), Gpu("GPU-B"))
    await peer.assign(1, asking("exec sleep 60", gpus=1))
    await peer.started(1, 0, 1)
    peer.new_job()
    fake.xids = [("GPU-A", 48)]
    fake.write()
    await peer.until(lambda: peer.hellos[-1].info.resources.gpus == 1)
    info = peer.hellos[-1].info
    assert [(device.id, device.health) for device in info.devices] == [("GPU-A", "Xid 48")]
    ended = await peer.run(asking(SHOW, gpus=1))
    assert (await peer.log_of(ended)).decode().split() == ["1", "gpu=GPU-B"]
    assert peer.ends(1, 0, 1) == []


async def test_a_plugins_devices_are_bound_and_lost_like_gpus(agent: AgentProcess, peer: Peer, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    cards = tmp_path / "cards"
    cards.write_text('{"id": "card0"}, {"id": "card1"}')
    plugin = folder / "fpga"
    plugin.write_text(
        '#!/bin/sh\necho \'{"version": 1, "resource": "fpga", "env": "FPGA", "devices": [\'; '
        f"cat {cards}; echo ']}}'\n"
    )
    plugin.chmod(0o755)
    agent.settings = {"devices": {**REFRESH, "plugins": str(folder)}}
    await agent.start()
    ended = await peer.run(asking("echo $FPGA; echo $HASCHED_DEVICES", fpga=2))
    assert (await peer.log_of(ended)).decode().split() == ["card0,card1", "fpga=card0,card1"]
    await peer.assign(2, asking("exec sleep 60", fpga=2))
    await peer.started(2, 0, 1)
    cards.write_text('{"id": "card1"}')
    lost = await peer.ended(2, 0, 1)
    assert (lost.kind, lost.reason) == (EndKind.DEVICE_LOST, "a device that it held is gone: fpga:card0")
    await peer.until(lambda: dict(peer.hellos[-1].info.resources.countables) == {"fpga": 1})


async def test_a_restarted_agent_leaves_devices_with_those_who_hold_them(
    agent: AgentProcess,
    peer: Peer,
    fake: FakeNvml,  # noqa: F811
) -> None:
    await start(agent, fake, Gpu("GPU-A"), Gpu("GPU-B"), gpu_shares=2, shared_gpus=["0"])
    await peer.assign(1, asking("exec sleep 60", gpus=1, **{"gpu-share": 1}))
    await peer.started(1, 0, 1)
    await agent.kill()
    await agent.start()
    await peer.until(lambda: len(peer.hellos) > 1)
    peer.new_job()  # the one above
    ended = await peer.run(asking(SHOW, **{"gpu-share": 1}))
    assert (await peer.log_of(ended)).decode().split() == ["0", "gpu-share=GPU-A/1"]
    assert peer.ends(1, 0, 1) == []


@pytest.fixture(params=["fake", "real"])
def driver(request: pytest.FixtureRequest) -> str:
    if request.param == "fake":
        request.getfixturevalue("fake").gpus = [Gpu("GPU-A", links=0), Gpu("GPU-B", links=0, numa_node=1)]
        request.getfixturevalue("fake").write()
    elif not has_real_gpu():
        pytest.skip(WHY_NOT_REAL)
    return str(request.param)


async def test_a_machine_can_be_asked_what_it_offers(driver: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hasched",
        "agent",
        "devices",
        "--json",
        env=dict(os.environ),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    found = [device for device in json.loads(output)["devices"] if device["kind"] == "gpu"]
    assert found
    for device in found:
        assert device["id"].startswith("GPU-")
        assert device["model"]
        assert device["memory_bytes"] > 2**30
    if driver == "fake":
        assert [device["nvlink_group"] for device in found] == [0, 0]
