"""The leader dies while a node is cut off, as when both hang on one switch: a new leader hasn't heard of the node yet, and
must not take that for its silence."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.cluster.topology import between
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class LeaderAndNode(Nemesis):
    name = "leader-and-node"
    summary = "the leader dies while a node is cut off for a moment"
    family = Family.AGENT
    needs = (Ability.CUTS, Ability.SIGNALS)
    seconds = (1.0, 3.0)
    weight = 2
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        leader, agent = await stage.leader(), stage.any_agent()
        links = between([agent], stage.cluster.managers)
        async with stage.claim(leader), stage.claim_links(links, agent):
            network, processes = stage.cluster.network, stage.cluster.processes
            await stage.under(seconds, network.cut(links, seconds), processes.down(leader, seconds))
