"""What a drill is: a cluster of its own, one failure, and what must be seen. It fails with the sentence that was not so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from chaos.abilities import Ability
from chaos.drills.scene import Scene


class Drill(ABC):
    """`happened` is what befell others; `settings` and `agent_settings` go into the daemons' configuration files."""

    name: ClassVar[str]
    happened: ClassVar[str]
    expects: ClassVar[str]
    needs: ClassVar[tuple[Ability, ...]] = (Ability.SIGNALS, Ability.RESTARTS)
    managers: ClassVar[int] = 3
    agents: ClassVar[int] = 2
    settings: ClassVar[dict[str, Any]] = {}
    agent_settings: ClassVar[dict[str, Any]] = {}

    @abstractmethod
    async def play(self, scene: Scene) -> None:
        """Raises Unmet."""
