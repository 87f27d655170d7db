"""What drills play with: tasks that note each attempt that begins and wait to be let go, and looks at the cluster."""

from __future__ import annotations

import asyncio
import os
import shlex
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from chaos.drills.scene import PATIENCE_S, Scene
from chaos.safety.identity import Born, born, is_alive
from chaos.wholeness import is_fit, obstacles
from hasched.client.aio import AsyncClient
from hasched.model.states import TaskState
from hasched.model.views import AttemptView, JobView, NodeView, TaskView

# Nodes are given up soon, so that a drill need not wait half a minute for it.
GRACE_S = 3.0
QUICK: dict[str, Any] = {"heartbeat": "200ms", "unhealthy_after": "1s", "node_grace": "3s"}
# Where agents are started again and nothing is to be given up, however long a busy machine takes over it.
PATIENT: dict[str, Any] = {**QUICK, "node_grace": "30s"}
SPREAD: dict[str, Any] = {**QUICK, "scheduler": {"placement": "spread"}}

# The line is one small write to a file opened with O_APPEND, so lines of several tasks never mix.
_SCRIPT = """#!/bin/sh
echo "$HASCHED_TASK_INDEX $HASCHED_ATTEMPT $$ $HASCHED_NODE" >> {folder}/begun
until [ -e {folder}/go ] || [ -e "{folder}/go.$HASCHED_ATTEMPT" ]; do sleep 0.05; done
exit "$(cat "{folder}/go.$HASCHED_ATTEMPT" {folder}/go 2>/dev/null | head -n 1)"
"""


class Began(msgspec.Struct, frozen=True):
    """An attempt that began, as it noted itself. `process` is None if it was gone when somebody looked."""

    index: int
    attempt: int
    node_id: str
    process: Born | None

    @property
    def alive(self) -> bool:
        return self.process is not None and is_alive(self.process)


class Gate:
    """A job whose tasks wait at a gate in the cluster's scratch directory. What they note there no manager can know wrongly."""

    def __init__(self, scene: Scene) -> None:
        self._folder = Path(scene.cluster.scratch) / f"gate-{uuid.uuid4().hex[:12]}"
        self._folder.mkdir(mode=0o700)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o777)  # tasks may run as another user than the harness
        finally:
            os.close(descriptor)
        self._seen: dict[tuple[int, int, int], Born | None] = {}

    def document(self, **keys: object) -> dict[str, Any]:
        """The job, with more keys of a spec than its script."""
        folder = shlex.quote(str(self._folder))
        return {"name": "gate", "script": _SCRIPT.format(folder=folder), "resources": {"cpu": "100m"}, **keys}

    def let_go(self, attempt: int | None = None, code: int = 0) -> None:
        """All attempts that wait, or come later, or only the one of this number, exit with `code`."""
        name = "go" if attempt is None else f"go.{attempt}"
        fresh = self._folder / f".{name}-{uuid.uuid4().hex[:12]}"
        with fresh.open("x") as file:  # never through a link that somebody put there: others may write in this folder
            file.write(f"{code}\n")
        fresh.rename(self._folder / name)

    def begun(self) -> list[Began]:
        """In the order in which they began. Look early: what has ended can't be told from another process any more."""
        path = self._folder / "begun"
        if not path.exists():
            return []
        found = []
        for line in path.read_text().splitlines():
            index, attempt, pid, node_id = line.split(" ", 3)
            key = (int(index), int(attempt), int(pid))
            if key not in self._seen:
                self._seen[key] = born(int(pid))
            found.append(Began(key[0], key[1], node_id, self._seen[key]))
        return found

    def repeated(self) -> list[str]:
        """Attempts that began more than once: their numbers promise that this can't be."""
        keys = [(each.index, each.attempt) for each in self.begun()]
        return [f"attempt {key[1]} of task {key[0]}" for key in dict.fromkeys(keys) if keys.count(key) > 1]


async def until_begun(scene: Scene, gate: Gate, count: int = 1, attempt: int | None = None) -> list[Began]:
    """Those that began, of this number of an attempt, once there are `count` of them. Raises Unmet."""

    async def enough() -> list[Began] | None:
        found = [each for each in gate.begun() if attempt in (None, each.attempt)]
        return found if len(found) >= count else None

    number = "" if attempt is None else f" with number {attempt}"
    return await scene.eventually(f"{count} attempts{number} to begin", enough)


async def until_ended(scene: Scene, job_id: int, patience_s: float = PATIENCE_S) -> JobView:
    """The job once it has ended. Raises Unmet."""
    seen = ""

    async def ended() -> JobView | None:
        nonlocal seen
        job = await scene.client.job(job_id)
        seen = f"{job.state}, tasks {job.tasks}"
        return job if TaskState[job.state].final else None

    return await scene.eventually(f"the end of job {job_id}", ended, patience_s, lambda: seen)


async def until_task(scene: Scene, job_id: int, index: int, *states: TaskState) -> TaskView:
    """The task once it is in one of these states. Raises Unmet."""
    wanted, seen = " or ".join(each.name for each in states), ""

    async def there() -> TaskView | None:
        nonlocal seen
        task = await scene.client.task(job_id, index)
        seen = f"{task.state}, attempt {task.attempt}"
        return task if TaskState[task.state] in states else None

    return await scene.eventually(f"task {index} of job {job_id} to be {wanted}", there, seen=lambda: seen)


async def until_gone(scene: Scene, began: Iterable[Began]) -> None:
    """Until none of these processes runs any more. Raises Unmet."""
    waiting = list(began)

    async def gone() -> bool:
        return not any(each.alive for each in waiting)

    await scene.eventually("the end of a task's process", gone)


async def attempts_of(scene: Scene, job_id: int, index: int = 0) -> list[AttemptView]:
    return (await scene.client.task(job_id, index)).attempts


async def leader_of(scene: Scene) -> str:
    """Who leads, once somebody does."""

    async def leads() -> str | None:
        return (await scene.client.managers()).leader

    return await scene.eventually("a leader", leads)


async def until_whole(scene: Scene, client: AsyncClient | None = None) -> None:
    """Until the cluster is whole (`chaos.wholeness`), as `client`, by default the scene's, is told. Raises Unmet."""
    asked, cluster, lacks = client or scene.client, scene.cluster, [""]

    async def whole() -> bool:
        lacks[:] = obstacles(await asked.managers(), await asked.nodes(), cluster.managers, cluster.agents)
        return not lacks

    await scene.eventually("a whole cluster", whole, seen=lambda: "; ".join(lacks))


async def until_away(scene: Scene, node_id: str) -> None:
    """Until the managers know that the node's agent is gone: only then is it another one that they show as connected."""

    async def away() -> bool:
        return not (await scene.client.node(node_id)).connected

    await scene.eventually(f"{node_id} to be seen as not connected", away)


async def until_fit(scene: Scene, node_id: str) -> NodeView:
    """The node once it is connected and healthy. Raises Unmet."""

    async def fit() -> NodeView | None:
        node = await scene.client.node(node_id)
        return node if is_fit(node) else None

    return await scene.eventually(f"{node_id} to be connected", fit)


async def run_one(scene: Scene, what: str, **keys: object) -> JobView:
    """A small job of its own, from its submission to its success. Raises Unmet."""
    told = await scene.client.submit({"name": "probe", "command": ["true"], "resources": {"cpu": "100m"}, **keys})
    job = await until_ended(scene, told.id)
    scene.expect(job.state == "SUCCEEDED", f"{what}: a small job runs and succeeds", job.state)
    return job


async def kill_all(scene: Scene, names: Iterable[str]) -> None:
    names = list(names)
    for name in names:
        await scene.cluster.processes.kill(name)
    scene.show(f"SIGKILL to {', '.join(names)}")


async def start_all(scene: Scene, names: Iterable[str]) -> None:
    names = list(names)
    for name in names:
        await scene.cluster.processes.start(name)
    scene.show(f"started {', '.join(names)}")


async def silence(scene: Scene, seconds: float, why: str) -> None:
    """Let real time pass: it is the failure's length, and no way to wait for something."""
    scene.show(f"{why} for {seconds:.0f} s")
    await asyncio.sleep(seconds)


def resident_bytes(pid: int) -> int:
    """What a process holds in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
