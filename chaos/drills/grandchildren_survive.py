"""A task's time is up, and it has children: some in sessions of their own, one whose parent is gone."""

from __future__ import annotations

import shlex
import uuid
from pathlib import Path

from chaos.drills.base import Drill
from chaos.drills.props import QUICK, until_ended
from chaos.drills.scene import Scene
from chaos.safety.identity import Born, born, is_alive

TIMEOUT_S = 1
# Four kinds of descendants: a child, one in a session of its own, an orphan in a session of its own, and one that ignores
# TERM. Each notes its process id.
_SCRIPT = """#!/bin/sh
note() {{ echo "$1 $2" >> {file}; }}
sleep 300 & note child $!
setsid sh -c 'echo "session $$" >> {file}; exec sleep 300' &
(setsid sh -c 'echo "orphan $$" >> {file}; exec sleep 300' &)
sh -c 'trap "" TERM; echo "stubborn $$" >> {file}; while :; do sleep 300; done' &
note shell $$
wait
"""
KINDS = ("shell", "child", "session", "orphan", "stubborn")


class GrandchildrenSurvive(Drill):
    name = "grandchildren-survive"
    happened = "A timeout killed the shell only."
    expects = "With its time limit all of an attempt ends: every descendant, whatever session it is in."
    agents = 1
    settings = QUICK

    async def play(self, scene: Scene) -> None:
        file = Path(scene.cluster.scratch) / f"family-{uuid.uuid4().hex[:12]}"
        document = {
            "name": "family",
            "script": _SCRIPT.format(file=shlex.quote(str(file))),
            "timeout": f"{TIMEOUT_S}s",
            "kill_grace": "500ms",
            "restart": "never",
        }
        job = await scene.client.submit(document)

        async def all_there() -> dict[str, Born] | None:
            lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
            found = {kind: born(int(pid)) for kind, pid in lines}
            there = {kind: each for kind, each in found.items() if each is not None}
            return there if len(there) == len(KINDS) else None

        family = await scene.eventually("the task and its descendants", all_there)
        scene.show(f"a task with a time limit of {TIMEOUT_S} s runs as {len(family)} processes: {', '.join(family)}")
        ended = await until_ended(scene, job.id)
        scene.expect(ended.state == "TIMED_OUT", "it is ended by its time limit", ended.state)

        async def all_gone() -> bool:
            return not any(is_alive(each) for each in family.values())

        await scene.eventually("every process of the task to be gone", all_gone, patience_s=5.0)
        scene.show("none of its processes is left")
        node = await scene.client.node(scene.cluster.agents[0])
        scene.expect(node.running == 0, "and the node holds nothing", node.running)
