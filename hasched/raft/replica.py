"""`Replica`: the replicated state as the rest of a manager sees it.

Everything here runs on the manager's one event loop. `state` may be read between awaits, and is never written from
outside: the only way in is `propose`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from hasched.model.ids import ManagerId
from hasched.raft.divergence import Verdict
from hasched.raft.membership import Member
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import Command
from hasched.statemachine.outcomes import Outcome
from hasched.statemachine.state import State

__all__ = ["Applied", "Member", "MemberStatus", "Replica", "ReplicaStatus", "Verdict"]


class MemberStatus(msgspec.Struct, frozen=True):
    """What this manager knows of another.

    `voter`: it counts by the membership in force; else it is a learner. On the leader alone: `match_index`; `filled`, its
    disk was not wiped, or was filled again since; `caught_up`, it holds what was committed a moment ago.
    """

    member: Member
    connected: bool
    match_index: int | None
    voter: bool = True
    filled: bool | None = None
    caught_up: bool | None = None


class ReplicaStatus(msgspec.Struct, frozen=True):
    manager_id: ManagerId
    role: str  # leader, follower, candidate, learner, removed
    term: int
    leader: ManagerId | None
    last_index: int
    commit_index: int
    applied_index: int
    members: list[MemberStatus]
    verdict: Verdict | None = None  # of the latest check of the managers' states, since this one was started


class Replica(Protocol):
    @property
    def manager_id(self) -> ManagerId: ...

    @property
    def state(self) -> State: ...

    @property
    def applied_index(self) -> int: ...

    @property
    def max_command_bytes(self) -> int:
        """A larger command, encoded, is never taken."""

    @property
    def term(self) -> int: ...

    @property
    def is_leader(self) -> bool:
        """A hint for efficiency, never a condition for safety."""

    @property
    def leader(self) -> Member | None: ...

    @property
    def status(self) -> ReplicaStatus: ...

    def clock_ms(self) -> int:
        """The time that an entry would carry if this manager led: at least `state.now_ms`, and it goes on even while the wall
        clock is behind that."""

    async def propose(self, command: Command) -> Outcome:
        """Commit and apply one command, from whichever manager; returns once *this* manager has applied it.

        Raises NoLeader (nothing was done; safe to retry), OutcomeUnknown (may have been committed), Overloaded, BodyTooLarge.
        """

    async def propose_many(self, commands: Sequence[Command]) -> list[Outcome]:
        """As `propose`, for several that travel together, in order, in one log entry where they fit. Some may be refused."""

    async def read_barrier(self) -> int:
        """Linearizable read point: afterwards `state` holds all that was committed before the call. Returns the applied index.

        Raft thesis, section 6.4. Works on followers too. Raises NoLeader.
        """

    async def transfer(self, target: ManagerId | None) -> ManagerId:
        """Make `target`, or whoever is best, the leader, from whichever manager. Returns once this manager sees it lead.

        Raises TransferFailed; then whoever leads leads on. Raft thesis, section 3.10.
        """

    def subscribe(self, callback: Callable[[Applied], None]) -> Callable[[], None]:
        """Call `callback` after every applied entry, on the loop, in index order. Returns the way to stop it."""

    def on_role_change(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Call `callback(is_leader)` when this manager starts or stops to lead *and* has applied an entry of its own term."""

    async def check(self) -> int:
        """Have the managers' states compared, as they are after everything that was committed before the call.

        Returns the index of the check, once this manager has reached it; `status.verdict` follows. Raises NoLeader.
        """

    def wait_for(self, index: int) -> Awaitable[None]:
        """Until `applied_index` is at least `index`."""
