"""Histories: what clients asked, when, and what they were told.

Times are seconds on one clock that all clients of a run share; only their order matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from math import inf
from typing import Any

import msgspec


class Ending(Enum):
    """How a call ended. `FAILED` promises that nothing was done; `UNKNOWN` promises nothing: it may happen even later."""

    RETURNED = "returned"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a client about the object `key`. `result` is the value it was given, if it returned."""

    client: str
    key: str
    kind: str
    arguments: Any = None
    invoked_at: float
    returned_at: float = inf
    ending: Ending = Ending.UNKNOWN
    result: Any = None

    def __str__(self) -> str:
        asked = self.kind if self.arguments is None else f"{self.kind} {self.arguments}"
        told = self.result if self.ending is Ending.RETURNED else self.ending.value
        until = "…" if self.returned_at == inf else f"{self.returned_at:.6f}"
        return f"{self.invoked_at:.6f} to {until}  {self.client}: {asked} -> {told}"


class History:
    """Collects operations while they happen. A call that never ends stays `UNKNOWN`."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []

    def __len__(self) -> int:
        return len(self._operations)

    def begin(self, client: str, key: str, kind: str, at: float, arguments: Any = None) -> int:
        """A call starts now. Returns the number by which its end is told."""
        self._operations.append(Operation(client=client, key=key, kind=kind, arguments=arguments, invoked_at=at))
        return len(self._operations) - 1

    def returned(self, number: int, at: float, result: Any) -> None:
        self._end(number, at, Ending.RETURNED, result)

    def failed(self, number: int, at: float) -> None:
        self._end(number, at, Ending.FAILED)

    def unknown(self, number: int) -> None:
        """It ended without saying what became of it: for all that follows it is still under way."""

    def _end(self, number: int, at: float, ending: Ending, result: Any = None) -> None:
        began = self._operations[number]
        assert began.returned_at == inf and at >= began.invoked_at, f"{began} ends twice, or before it began"
        self._operations[number] = msgspec.structs.replace(began, returned_at=at, ending=ending, result=result)

    def operations(self) -> list[Operation]:
        return self._operations[:]

    def by_key(self) -> dict[str, list[Operation]]:
        return by_key(self._operations)


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations on each object, in the order of their calls."""
    found: dict[str, list[Operation]] = {}
    for operation in sorted(operations, key=lambda each: each.invoked_at):
        found.setdefault(operation.key, []).append(operation)
    return found
