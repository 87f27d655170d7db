"""What an ordinary user does to the `hasched dev` of theirs: run by tests/chaos/test_attached.py, as that user.

`python attached_story.py FOLDER`; prints what was seen, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chaos.abilities import Ability
from chaos.cluster.attached import AttachedCluster
from chaos.consent import require
from chaos.errors import ConsentMissing
from chaos.safety.identity import born, is_alive, is_stopped
from chaos.safety.ledger import Ledger

WORD = "written by a task"


@contextmanager
def dev(folder: Path, context: str, managers: int, agents: int) -> Iterator[dict[str, int]]:
    """The process ids by name. Each has a contexts file of its own, and the harness is told which to use."""
    folder.mkdir()
    command = [sys.executable, "-P", "-m", "hasched", "dev", "--data-dir", str(folder / "data"), "--json"]
    process = subprocess.Popen(
        [*command, "--managers", str(managers), "--agents", str(agents)],
        env={**os.environ, "HASCHED_CONFIG_DIR": str(folder / "config")},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        while json.loads(process.stdout.readline())["event"] != "ready":
            pass
        yield json.loads((folder / "data" / "processes.json").read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


async def consent(cluster: AttachedCluster, seen: dict[str, Any]) -> None:
    for typed in (None, "production"):
        try:
            await require(cluster, typed, interactive=False)
        except ConsentMissing as refused:
            seen["refused"].append(refused.cause)
    await require(cluster, "dev", interactive=False)


async def break_it(cluster: AttachedCluster, seen: dict[str, Any]) -> None:
    processes = cluster.processes
    async with cluster.client() as client:
        leader = (await client.managers()).leader
        assert leader is not None
        before = processes.pid(leader)
        async with processes.down(leader, 0.5):
            seen["killed"] = [leader, before]
            submitted = await client.submit({"command": ["sh", "-c", f"echo {WORD} >> {cluster.scratch}/note"]})
            seen["state"] = (await client.wait(submitted.id, 60)).state
        seen["note"] = (Path(cluster.scratch) / "note").read_text()
        seen["came_back"] = [processes.pid(leader) not in (None, before), processes.restarts(leader)]

        other = born(processes.pid("m1") or 0)
        assert other is not None
        async with processes.frozen("m1", 30):
            seen["frozen"] = await until(lambda: is_stopped(other))
        seen["thawed"] = await until(lambda: not is_stopped(other))

        submitted = await client.submit({"command": ["sh", "-c", f"echo $$ > {cluster.scratch}/pid; exec sleep 600"]})
        file = Path(cluster.scratch) / "pid"
        assert await until(lambda: file.exists() and file.read_text())
        task = born(int(file.read_text()))
        assert task is not None
        node = (await client.task(submitted.id, 0)).attempts[-1].node_id
        await processes.reboot(node)
        seen["rebooted"] = [not is_alive(task), processes.restarts(node)]


async def until(probe: Any) -> bool:
    async with asyncio.timeout(60):
        while not probe():
            await asyncio.sleep(0.02)
    return True


def play_drill(folder: Path, *consent: str) -> dict[str, Any]:
    """As an operator does: by the command line."""
    command = [sys.executable, "-P", "-m", "hasched", "chaos", "drill", "leader-kill", "--attach", *consent]
    done = subprocess.run(
        [*command, "--output", str(folder / "reports"), "--json"], capture_output=True, text=True, check=False
    )
    drills = json.loads(done.stdout)["drills"] if done.stdout else []
    return {
        "code": done.returncode,
        "told": done.stderr,
        "verdicts": [[each["name"], each["verdict"], each["why"], len(each["evidence"])] for each in drills],
        "reports": sorted(path.name for path in (folder / "reports").glob("*")),
    }


async def story(folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {"user": os.geteuid(), "refused": []}
    os.environ["HASCHED_STATE_DIR"] = str(folder / "state")
    os.environ["HASCHED_CONFIG_DIR"] = str(folder / "ours" / "config")
    with ExitStack() as stack:
        seen["ours"] = dict(stack.enter_context(dev(folder / "ours", "ours", 3, 2)))
        theirs = stack.enter_context(dev(folder / "theirs", "theirs", 1, 1))
        strangers = {name: born(pid) for name, pid in theirs.items()}
        with Ledger.open("of the current context", command="a test") as ledger:
            async with AttachedCluster.attached(None, ledger) as cluster:
                seen["name"] = cluster.name
                seen["names"] = [*cluster.managers, *cluster.agents]
                seen["found"] = {name: cluster.processes.pid(name) for name in seen["names"]}
                seen["left_out"] = cluster.left_out
                seen["missing"] = {
                    ability.name: cluster.missing[ability] for ability in Ability if ability in cluster.missing
                }
                seen["logs"] = sorted(cluster.logs())
                await consent(cluster, seen)
                await break_it(cluster, seen)
                scratch = Path(cluster.scratch)
        audit = (folder / "state" / "chaos" / "audit.jsonl").read_text().splitlines()
        seen["audit"] = [(line["act"], line["cluster"], line["what"]) for line in map(json.loads, audit)]
        seen["refused drill"] = play_drill(folder)
        seen["drill"] = play_drill(folder, "--cluster", "dev")
        seen["left"] = [*ledger.left, *map(str, (folder / "state" / "chaos" / "ledgers").iterdir())]
        seen["scratch"] = scratch.exists()
        seen["strangers"] = [name for name, process in strangers.items() if process is None or not is_alive(process)]
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(story(Path(sys.argv[1])))))
