"""What a nemesis is: a value with a name, which does one kind of harm for a while and leaves the cluster able to heal.

It draws whom it hits from `stage.chance`, claims them (two nemeses never work on one daemon), does its harm inside the
contexts of `stage.cluster` (which put the way back on disk first), and holds it with `stage.hold`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from chaos.abilities import Ability
from chaos.families import Family
from chaos.stage import Stage


class Nemesis(ABC):
    """`seconds` are the shortest and the longest that one strike lasts; `weight` is how often it is drawn."""

    name: ClassVar[str]
    summary: ClassVar[str]
    family: ClassVar[Family]
    needs: ClassVar[tuple[Ability, ...]] = (Ability.SIGNALS,)
    seconds: ClassVar[tuple[float, float]] = (2.0, 8.0)
    weight: ClassVar[int] = 2
    managers: ClassVar[int] = 3  # the cluster must have at least so many
    agents: ClassVar[int] = 0

    @abstractmethod
    async def strike(self, stage: Stage, seconds: float) -> None:
        """One strike of about `seconds`. Raises Skipped where there is nobody to hit now."""
