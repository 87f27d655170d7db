"""Everything is stopped, and every manager comes back under another address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from chaos.cluster.network import free_ports
from chaos.drills import configs
from chaos.drills.base import Drill
from chaos.drills.props import PATIENT, Gate, kill_all, run_one, start_all, until_begun, until_whole
from chaos.drills.scene import Scene
from hasched.client.aio import AsyncClient


class AllDownNewAddresses(Drill):
    name = "all-down-new-addresses"
    happened = "After a full stop with changed addresses no leader was ever elected."
    expects = (
        "The files say where members are reached: a leader is elected at the new addresses, with all that was there."
    )
    settings = PATIENT

    async def play(self, scene: Scene) -> None:
        cluster, gate = scene.cluster, Gate(scene)
        files = {name: configs.config_file(scene, name) for name in (*cluster.managers, *cluster.agents)}
        before = await run_one(scene, "before")
        job = await scene.client.submit(gate.document())
        (begun,) = await until_begun(scene, gate)

        await kill_all(scene, [*cluster.managers, *cluster.agents])
        urls = _move(files, cluster.managers)
        scene.show(f"every manager has a new address: {', '.join(urls)}")
        await start_all(scene, [*cluster.managers, *cluster.agents])

        context = msgspec.structs.replace(cluster.context(), managers=urls)
        async with AsyncClient(context) as client:
            await until_whole(scene, client)
            page = await client.managers()
            scene.show(f"{page.leader} leads")
            told = [each.api_url for each in page.managers]
            scene.expect(sorted(told) == sorted(urls), "all managers are known by their new addresses", told)
            old = await client.job(before.id)
            scene.expect(old.state == "SUCCEEDED", f"job {before.id} is still there", old.state)
            scene.expect(begun.alive, "the task that was running still runs")
            gate.let_go()
            ended = await client.wait(job.id, timeout=30)
            scene.expect(ended.state == "SUCCEEDED", "its end came in at the new addresses", ended.state)
            scene.expect(len(gate.begun()) == 1, "it was started once", len(gate.begun()))
            fresh = await client.submit({"name": "fresh", "command": ["true"]})
            ended = await client.wait(fresh.id, timeout=30)
            scene.expect(ended.state == "SUCCEEDED", "new jobs run", ended.state)


def _move(files: dict[str, Path], managers: list[str]) -> list[str]:
    """Other ports for all, in every file. Returns the new URLs."""
    ports = free_ports(2 * len(managers))
    new = {name: (ports[2 * place], ports[2 * place + 1]) for place, name in enumerate(managers)}
    urls: dict[str, str] = {}

    def move_manager(config: configs.Config) -> None:
        for member in config["members"]:
            api, raft = new[member["name"]]
            member["api"] = f"https://{urlsplit(member['api']).hostname}:{api}"
            member["raft"] = f"{member['raft'].rpartition(':')[0]}:{raft}"
            urls[member["name"]] = member["api"]
        for kind, port in zip(("api", "raft"), new[config["name"]], strict=True):
            config[kind]["listen"] = f"{config[kind]['listen'].rpartition(':')[0]}:{port}"

    for name in managers:
        configs.change(files[name], move_manager)
    for name in files.keys() - new.keys():
        configs.change(files[name], lambda config: config.update(managers=list(urls.values())))
    return list(urls.values())
