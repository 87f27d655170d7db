"""Managers are added and others removed, while everything else goes on."""

from __future__ import annotations

from chaos.abilities import Ability
from chaos.families import Family
from chaos.nemeses.base import Nemesis
from chaos.stage import Skipped, Stage
from hasched.model.errors import HaschedError

LARGEST = 5  # that many are exchanged instead


class Membership(Nemesis):
    name = "membership"
    summary = "managers are added, and as many removed"
    family = Family.OPERATOR
    needs = (Ability.MEMBERSHIP,)
    seconds = (1.0, 4.0)
    managers = 1

    async def strike(self, stage: Stage, seconds: float) -> None:
        members = stage.cluster.members
        count = stage.chance.choice((1, 2)) if len(stage.cluster.managers) < LARGEST else 0
        try:
            for _ in range(count):
                stage.note(f"{await members.add()} was added")
            await stage.hold(seconds)
            for _ in range(max(count, 1)):
                manager = stage.any_manager()
                async with stage.claim(manager):
                    await members.remove(manager)
                    stage.note(f"{manager} was removed")
            if not count:
                stage.note(f"{await members.add()} was added")
        except (HaschedError, Skipped) as why:  # not again from the start: managers would become ever more
            stage.note(str(why))
