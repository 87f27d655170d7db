"""`ReplicaNode`: the `Replica` that a manager runs, and how it is opened from its data directory.

data_dir/
  identity.json   whose directory this is
  lock            held while a process uses it
  journal/        entries, terms and votes
  snapshots/      the latest snapshot
  diverged-INDEX/ journal and snapshots of a state that went wrong, set aside
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from pysyncobj import syncobj

from hasched.model.errors import BodyTooLarge, HaschedError, NoLeader, StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.admission import Admission
from hasched.raft.core import Core
from hasched.raft.driver import Driver
from hasched.raft.environment import Environment
from hasched.raft.identity import DataDirectory
from hasched.raft.journal import Journal
from hasched.raft.membership import Membership, Standing, sort_members, split_address
from hasched.raft.proposals import Proposal
from hasched.raft.replica import Applied, Member, MemberStatus, ReplicaStatus
from hasched.raft.segments import REPAIR_HINT
from hasched.raft.snapshots import SnapshotStore
from hasched.raft.transport import LinksConfig
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import Command, encode_command
from hasched.statemachine.outcomes import Outcome
from hasched.statemachine.snapshot import restore
from hasched.statemachine.state import State
from hasched.statemachine.streams import SnapshotInvalid

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


class ReplicaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who this manager is, and with whom it begins: `members` is the same list, itself included, on every manager.

    Once the log says who is a member, `members` only says where they are reached. A manager with `join` never forms a
    cluster: it waits until it is added to one.

    `listen` is HOST:PORT of this machine. The server context requires client certificates of the cluster's CA, the
    client context shows this manager's own.
    """

    cluster_id: str
    manager_id: ManagerId
    members: list[Member]
    listen: str
    data_dir: Path
    server_ssl: ssl.SSLContext
    client_ssl: ssl.SSLContext
    tuning: Tuning = Tuning()
    join: bool = False


def open_replica(config: ReplicaConfig, environment: Environment | None = None) -> ReplicaNode:
    """Read what the data directory holds. Raises StorageFailed if it is damaged, in use, or somebody else's."""
    return ReplicaNode(config, environment or Environment())


class ReplicaNode:
    """See `Replica`. Between `start` and `stop` it belongs to one event loop."""

    def __init__(self, config: ReplicaConfig, environment: Environment) -> None:
        self._config = config
        self._named = {member.manager_id: member for member in config.members}
        assert config.manager_id in self._named, "a manager is among those that its file names"
        self._me = self._named[config.manager_id]
        self._subscribers: dict[int, Callable[[Applied], None]] = {}
        self._role_callbacks: dict[int, Callable[[bool], None]] = {}
        self._next_callback = 0
        self._run: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._stopped = False
        self._directory = DataDirectory(
            config.data_dir,
            config.cluster_id,
            config.manager_id,
            alone=len(self._named) == 1 and not config.join,
            disk=environment.disk,
        )
        try:
            self._open(environment)
        except BaseException:
            self._directory.release()
            raise

    def _open(self, environment: Environment) -> None:
        config, tuning = self._config, self._config.tuning
        disk, random = environment.disk, environment.random
        store = SnapshotStore(config.data_dir / "snapshots", config.cluster_id, disk=disk)
        self._journal = Journal(config.data_dir / "journal", tuning.segment_bytes, disk=disk, random=random)
        self._core = Core(
            config.manager_id,
            founding_membership(config),
            journal=self._journal,
            snapshots=store,
            state=_load_state(store),
            tuning=tuning,
            random=random,
            wall_ms=environment.wall_ms,
            voter=self._directory.identity.voter,
            may_found=not (config.join or self._directory.identity.rebuilding),
            on_join=self._directory.become_voter,
            on_fence=self._directory.fence,
            on_applied=self._publish,
            on_role=self._change_role,
        )
        self._admission = Admission(
            self._core.engine,
            me=self._me,
            cluster_id=config.cluster_id,
            named=self._named,
            rebuilding=self._directory.identity.rebuilding,
            incarnation=self._directory.identity.incarnation,
            adopt=self._directory.adopt_incarnation,
        )
        self._driver = Driver(self._core, self._admission, self._journal, store, tuning)
        links = LinksConfig(
            cluster_id=config.cluster_id,
            manager_id=config.manager_id,
            listen=split_address(config.listen),
            addresses=self._admission.links() or {},
            server_ssl=config.server_ssl,
            client_ssl=config.client_ssl,
            random=random,
            waits=config.join,
        )
        self._driver.transport = self._transport = environment.connect(links, self._driver)

    # --- life ---

    async def start(self) -> None:
        """Take part. Raises OSError if the address can't be listened on."""
        await self._transport.start()
        self._run = asyncio.get_running_loop().create_task(self._driver.run(), name="raft")
        self._run.add_done_callback(self._end)

    async def stop(self) -> None:
        """Leave, and free the data directory. A leader hands over first. Proposals under way end as OutcomeUnknown."""
        await self.hand_over()
        self._driver.stop()
        if self._leaving is None:
            await self._transport.stop()
        if self._run is not None:
            await asyncio.wait([task for task in (self._run, self._leaving) if task is not None])
        self._close("this manager stops")

    async def wait_failed(self) -> None:
        """Returns when the replica was stopped; raises what ended it before that. A manager that sees it raise must exit."""
        assert self._run is not None
        await asyncio.shield(self._run)

    def _end(self, run: asyncio.Task[None]) -> None:
        error = None if run.cancelled() else run.exception()
        if error is not None:
            log.critical("replica_failed", cause=str(error), exc_info=error)
            self._close(f"this manager has failed: {error}")
            self._leaving = asyncio.get_running_loop().create_task(self._transport.stop())

    def _close(self, cause: str) -> None:
        if not self._stopped:
            self._stopped = True
            self._core.proposals.abandon(cause)
            self._core.reads.abandon(cause)
            self._core.divergence.abandon(cause)
            self._core.transfers.abandon(cause)
            self._change_role(False)
            self._journal.close()
            self._directory.release()

    # --- what it knows ---

    @property
    def manager_id(self) -> ManagerId:
        return self._config.manager_id

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def max_command_bytes(self) -> int:
        return self._config.tuning.max_entry_bytes

    @property
    def applied_index(self) -> int:
        return self._core.engine.applied_index

    @property
    def term(self) -> int:
        return self._core.engine.term

    @property
    def is_leader(self) -> bool:
        return self._core.engine.is_leader and not (self._stopped or self._driver.disk_full)

    @property
    def leader(self) -> Member | None:
        leader_id = self._core.engine.leader_id
        return None if leader_id is None else self._admission.find(leader_id)

    @property
    def status(self) -> ReplicaStatus:
        engine = self._core.engine
        return ReplicaStatus(
            manager_id=self.manager_id,
            role=self._admission.role,
            term=engine.term,
            leader=engine.leader_id,
            last_index=engine.last_index,
            commit_index=engine.commit_index,
            applied_index=engine.applied_index,
            members=self._member_statuses(),
            verdict=self._core.divergence.verdict,
        )

    def _member_statuses(self) -> list[MemberStatus]:
        engine = self._core.engine
        standings = engine.standings()
        if engine.is_leader:
            standings[self.manager_id] = Standing(True, True, True, engine.last_index)
        statuses = []
        for member in self._admission.members():
            name = member.manager_id
            connected = name == self.manager_id or self._transport.is_connected(name)
            known = standings.get(name)
            statuses.append(
                MemberStatus(member, connected, known.match_index, member.voter, known.filled, known.caught_up)
                if known is not None
                else MemberStatus(member, connected, None, member.voter)
            )
        return statuses

    def clock_ms(self) -> int:
        return self._core.clock_ms()

    # --- what it does ---

    async def propose(self, command: Command) -> Outcome:
        return (await self.propose_many((command,)))[0]

    async def propose_many(self, commands: Sequence[Command]) -> list[Outcome]:
        if not commands:
            return []
        encoded = [encode_command(command) for command in commands]
        largest, cap = max(map(len, encoded)), self.max_command_bytes
        if largest > cap:
            raise BodyTooLarge(f"a command of {largest} bytes; at most {cap} are taken", "send less at once")
        self._check_usable()
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._core.proposals.propose(Proposal(encoded, syncobj.monotonicTime(), partial(_settle, future)))
        self._driver.wake()
        return await future

    async def read_barrier(self) -> int:
        self._check_usable()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._core.reads.read(syncobj.monotonicTime(), partial(_settle, future))
        self._driver.wake()
        try:
            async with asyncio.timeout(self._config.tuning.proposal_timeout_s):
                await future
        except TimeoutError:
            raise NoLeader("this manager can't catch up with the others", "ask another manager") from None
        return self.applied_index

    async def check(self) -> int:
        await self.read_barrier()
        self._check_usable()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._core.divergence.ask(syncobj.monotonicTime(), partial(_settle, future))
        self._driver.wake()
        return await future

    async def transfer(self, target: ManagerId | None) -> ManagerId:
        self._check_usable()
        future: asyncio.Future[ManagerId] = asyncio.get_running_loop().create_future()
        self._core.transfers.request(target, syncobj.monotonicTime(), partial(_settle, future))
        self._driver.wake()
        return await future

    async def hand_over(self) -> None:
        """Before a leader stops: whoever takes over at once spares everybody the wait for an election. It may fail."""
        if self._stopped or self._run is None or not self.is_leader or not self._core.engine.has_electors:
            return
        with contextlib.suppress(HaschedError, TimeoutError):
            async with asyncio.timeout(2 * self._config.tuning.election_max_s):
                await self.transfer(None)

    def wait_for(self, index: int) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._core.reads.wait_for(index, partial(_settle, future))
        return future

    def subscribe(self, callback: Callable[[Applied], None]) -> Callable[[], None]:
        return self._register(self._subscribers, callback)

    def on_role_change(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        return self._register(self._role_callbacks, callback)

    def _check_usable(self) -> None:
        if self._stopped:
            raise NoLeader("this manager is stopping", "ask another manager")
        if self._admission.removed:
            raise NoLeader("this manager was removed from the cluster", "ask another manager")
        if self._driver.disk_full:
            raise StorageFailed("this manager's disk is full", "make room on it; other managers may still answer")

    # --- telling others ---

    def _register(
        self, callbacks: dict[int, Callable[[_T], None]], callback: Callable[[_T], None]
    ) -> Callable[[], None]:
        self._next_callback += 1
        number = self._next_callback
        callbacks[number] = callback
        return lambda: callbacks.pop(number, None) and None

    def _publish(self, applied: Applied) -> None:
        for fault in applied.faults:
            log.error("decide_failed", index=applied.index, cause=fault)
        self._call_all(self._subscribers, applied)

    def _change_role(self, leading: bool) -> None:
        log.info("role_changed", manager=self.manager_id, leading=leading, term=self.term)
        self._call_all(self._role_callbacks, leading)

    def _call_all(self, callbacks: dict[int, Callable[[_T], None]], value: _T) -> None:
        """A subscriber that fails must not stop consensus: its error goes to the loop's handler."""
        for callback in list(callbacks.values()):
            try:
                callback(value)
            except Exception as error:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a subscriber of the replica failed", "exception": error}
                )


def _load_state(store: SnapshotStore) -> State:
    if store.latest is None:
        return State()
    try:
        return restore(store.chunks(store.latest.path))
    except (OSError, SnapshotInvalid) as error:
        raise StorageFailed(f"the snapshot {store.latest.path} can't be used: {error}", REPAIR_HINT) from error


def _settle(future: asyncio.Future[_T], result: _T | HaschedError) -> None:
    if not future.done():
        if isinstance(result, HaschedError):
            future.set_exception(result)
        else:
            future.set_result(result)


def founding_membership(config: ReplicaConfig) -> Membership:
    """The members by the file. Who is to be added isn't a voter yet, whatever the file says."""
    members = [
        msgspec.structs.replace(member, voter=not (config.join and member.manager_id == config.manager_id))
        for member in config.members
    ]
    return Membership(sort_members(members))
