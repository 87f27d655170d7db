"""What a workload is: a value with a name that says what one client does until the faults are over.

Each client has a desk of its own, through which every call goes, so that all of them are on record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from chaos.workloads.desk import Desk


class Workload(ABC):
    """`clients` of them run side by side, each with its own chance."""

    name: ClassVar[str]
    summary: ClassVar[str]
    clients: ClassVar[int] = 1

    @abstractmethod
    async def run(self, desk: Desk) -> None:
        """Goes on until `desk.is_over`; then it begins nothing new. A call that failed is recorded, and no error here."""
