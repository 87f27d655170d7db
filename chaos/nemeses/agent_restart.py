"""SIGTERM of an agent and a new start: no task may be stopped by that."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Stage


class AgentRestart(Nemesis):
    name = "agent-restart"
    summary = "a clean stop of an agent by SIGTERM, and a start"
    family = Family.AGENT
    needs = (Ability.SIGNALS, Ability.RESTARTS)
    seconds = (0.2, 6.0)
    managers = 1
    agents = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        processes, agent = stage.cluster.processes, stage.any_agent()
        async with stage.claim(agent):
            try:
                status = await processes.terminate(agent)
                if status != 0:
                    stage.note(f"{agent} ended with {status}")
                await stage.hold(seconds)
            finally:
                await processes.start(agent)
