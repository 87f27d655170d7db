"""Windows: when nodes belong to somebody, or to nobody, by reservations and maintenance (policies of kind `reservation`).

A task gets a node with a window before it only if it has surely ended when the window begins, or may use the window. A task
without a time limit never surely ends, so it stays off such nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

from hasched.model.ids import NodeId
from hasched.model.policy import PolicyKind, Reservation
from hasched.scheduler.order import Account
from hasched.scheduler.shapes import NEVER_MS
from hasched.statemachine.state import State

Access: TypeAlias = tuple[str, ...]  # names of the reservations that a job may use, sorted


class Windows:
    """The windows that have not passed. `next_end_ms`: when the first of them has."""

    def __init__(self) -> None:
        self._reservations: dict[str, Reservation] = {}
        self._of_node: dict[NodeId, list[tuple[int, str]]] = {}  # (start, reservation)
        self.next_end_ms = NEVER_MS

    def refresh(self, state: State) -> list[NodeId]:
        """Take what the policies say now; the nodes for which that may be something else."""
        before = self._of_node
        self._reservations = {
            name: record.body
            for name, record in sorted(state.policies[PolicyKind.RESERVATION].items())
            if isinstance(record.body, Reservation) and record.body.end_ms > state.now_ms
        }
        self._of_node = {}
        self.next_end_ms = min((each.end_ms for each in self._reservations.values()), default=NEVER_MS)
        for name, reservation in self._reservations.items():
            for node_id in reservation.nodes:
                self._of_node.setdefault(node_id, []).append((reservation.start_ms, name))
        return list(dict.fromkeys([*before, *self._of_node]))

    @property
    def nodes(self) -> Collection[NodeId]:
        """Those that any reservation is for."""
        return self._of_node

    def access(self, account: Account) -> Access:
        """Which of them an account may use."""
        if not self._reservations:
            return ()
        return tuple(name for name, each in self._reservations.items() if is_for(each, account))

    def closes_ms(self, node_id: NodeId, access: Access) -> int:
        """When a node is closed to whoever has this access; it may be over already that it was open."""
        windows = self._of_node.get(node_id)
        if windows is None:
            return NEVER_MS
        return min((start_ms for start_ms, name in windows if name not in access), default=NEVER_MS)

    def closed_by(self, node_id: NodeId, access: Access) -> str:
        """The reservation that closes it then; empty if none does."""
        closing = [window for window in self._of_node.get(node_id, ()) if window[1] not in access]
        return min(closing)[1] if closing else ""

    def end_ms(self, name: str) -> int:
        """When a reservation that has not passed ends."""
        return self._reservations[name].end_ms

    def names(self) -> Iterable[str]:
        return self._reservations

    def __bool__(self) -> bool:
        return bool(self._reservations)


def is_for(reservation: Reservation, account: Account) -> bool:
    """Whether the reservation was made for this account."""
    return account.namespace in reservation.namespaces or account.user in reservation.users
