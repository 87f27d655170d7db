"""Schedules across changes of leader: one that is due every second, while leaders are killed one after the other."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.drills.base import Drill
from chaos.drills.props import leader_of, until_whole
from chaos.drills.scene import Scene
from chaos.drills.schedules import compare, ledger_of, put, until_fired

ROUNDS = 2
DOWN_S = 30.0


class ReElectionStopsCron(Drill):
    name = "re-election-stops-cron"
    happened = "Schedules silently stopped, or a run was missed in the gap."
    expects = "Every slot of a schedule has its run, once, whoever led when it was due."
    needs = (Ability.SIGNALS,)
    agents = 1

    async def play(self, scene: Scene) -> None:
        schedule = await put(scene, "second", "* * * * * *")
        first_ms = schedule.created_ms - schedule.created_ms % 1000 + 1000
        await until_fired(scene, "second", 0)
        for _ in range(ROUNDS):
            leader = await leader_of(scene)
            latest_ms = max(row.first_ms for row in await ledger_of(scene, "second"))
            async with scene.cluster.processes.down(leader, DOWN_S):
                scene.show(f"SIGKILL to {leader}, which leads")
                await until_fired(scene, "second", latest_ms + 3000)
                scene.show(f"{await leader_of(scene)} leads, and slots are fired")
            await until_whole(scene)
        await scene.client.pause_schedule("second", "the drill is over")
        late_ms = max(row.settled_ms - row.first_ms for row in await ledger_of(scene, "second") if row.job_id)
        scene.show(f"the latest was {late_ms} ms late")
        await compare(scene, "second", first_ms, 1000)
