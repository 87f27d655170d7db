"""A replica of one member whose log is this process: the real state machine, and a role that the test decides.

Proposals go through the same encoding as a real log, and pass on a follower too, as if forwarded. What a real replica can
answer besides an outcome (nobody leads, the outcome is not known) happens when the test asks for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from hasched.model.errors import BodyTooLarge, NoLeader
from hasched.raft.clock import LeaderClock
from hasched.raft.replica import Applied, Member, ReplicaStatus
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import Command, RecordOrigin, decode_batch, encode_batch, encode_command
from hasched.statemachine.outcomes import Outcome
from hasched.statemachine.state import State

ORIGIN = "0" * 32


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class LocalReplica:
    def __init__(
        self, wall_ms: Callable[[], int] = wall_clock_ms, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.manager_id = "m1"
        self.state = State()
        self.max_command_bytes = 2**20
        self.term = 0
        self.is_leader = False
        self.leader: Member | None = None
        self.commands: list[Command] = []
        self.fail_next: list[Exception] = []  # each ends one proposal
        self.held = asyncio.Event()  # cleared: proposals wait
        self.held.set()
        self._clock = LeaderClock(wall_ms, monotonic_s)
        self._subscribers: list[Callable[[Applied], None]] = []
        self._roles: list[Callable[[bool], None]] = []

    @property
    def applied_index(self) -> int:
        return self.state.index

    @property
    def status(self) -> ReplicaStatus:
        index = self.state.index
        role = "leader" if self.is_leader else "follower"
        return ReplicaStatus(self.manager_id, role, self.term, None, index, index, index, [])

    def lead(self, leads: bool) -> None:
        self.is_leader = leads
        if leads and not self.state.origin:
            self.commit(RecordOrigin(origin=ORIGIN))
            self.commands.clear()  # what was proposed by others
        if leads:
            self.term += 1
            self.leader = Member(self.manager_id, "https://localhost:1", "localhost:2")
        else:
            self.leader = Member("m2", "https://m2.example:7411", "m2.example:7412")
        for callback in list(self._roles):
            callback(leads)

    def clock_ms(self) -> int:
        return self._clock.read(self.state.now_ms)

    async def propose(self, command: Command) -> Outcome:
        return (await self.propose_many([command]))[0]

    async def propose_many(self, commands: Sequence[Command]) -> list[Outcome]:
        await asyncio.sleep(0)
        await self.held.wait()
        if self.fail_next:
            raise self.fail_next.pop(0)
        if self.leader is None:
            raise NoLeader("nobody leads")
        largest = max((len(encode_command(command)) for command in commands), default=0)
        if largest > self.max_command_bytes:
            raise BodyTooLarge(f"a command of {largest} bytes; at most {self.max_command_bytes} are taken")
        return self.commit(*commands)

    def commit(self, *commands: Command) -> list[Outcome]:
        """One entry, at once: whoever proposed it."""
        entry = encode_batch(self.clock_ms(), [encode_command(command) for command in commands])
        applied = apply(self.state, self.state.index + 1, decode_batch(entry))
        assert applied.faults == []
        self.commands += commands
        for callback in list(self._subscribers):
            callback(applied)
        return applied.outcomes

    async def read_barrier(self) -> int:
        await asyncio.sleep(0)
        await self.held.wait()
        if self.leader is None:
            raise NoLeader("nobody leads")
        return self.applied_index

    def subscribe(self, callback: Callable[[Applied], None]) -> Callable[[], None]:
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def on_role_change(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        self._roles.append(callback)
        return lambda: self._roles.remove(callback)

    async def wait_for(self, index: int) -> None:
        await until(lambda: self.applied_index >= index)


async def until(condition: Callable[[], object], patience_s: float = 10.0) -> None:
    """Yield to the loop until the condition holds."""
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.002)
