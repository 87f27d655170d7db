"""A node with a running task is cut off past its grace: the task starts elsewhere, and one outcome counts."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import between
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.nemeses.burden import Burden
from chaos.stage import Stage


class AgentCutOff(Nemesis):
    name = "agent-cut-off"
    summary = "a node with running tasks is cut off until it counts as lost"
    family = Family.AGENT
    needs = (Ability.CUTS,)
    seconds = (6.0, 15.0)
    weight = 3
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        async with Burden(stage) as burden:
            agent = await burden.busy_agent()
            links = between([agent], stage.cluster.managers)

            async def is_lost() -> bool:
                return (await burden.client.node(agent)).state == "disconnected"

            async with stage.claim_links(links, agent), stage.cluster.network.cut(links, seconds):
                if not await stage.eventually(is_lost, seconds):
                    stage.note(f"{agent} did not count as lost within {seconds:.0f} s")
