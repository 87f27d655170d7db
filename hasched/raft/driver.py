"""The driver: the one task that owns the engine, its disk and its links.

A turn: deliver what arrived; tick; take everything that was queued as new entries; sync the journal, in a worker
thread; and only then let the messages out. Nothing that is not on disk is ever told to anybody. While the disk syncs,
the loop goes on to gather what belongs to the next turn: that is group commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from pysyncobj import syncobj

from hasched.model.errors import StorageFailed
from hasched.model.ids import ManagerId
from hasched.raft.admission import Admission
from hasched.raft.core import Core
from hasched.raft.divergence import Check
from hasched.raft.journal import DiskFull, Journal
from hasched.raft.messages import Hello, Message, Refusal
from hasched.raft.snapshots import IncomingSnapshot, Snapshot, SnapshotStore
from hasched.raft.transport import Heard, Links
from hasched.raft.tuning import Tuning
from hasched.statemachine.snapshot import Capture, capture, restore
from hasched.statemachine.streams import SnapshotInvalid

_T = TypeVar("_T")
LATE_S = (
    0.05  # a turn that begins so long after it was due was held up by something else on the loop, or on the machine
)

PAUSE_S = 0.004  # between two slices of a snapshot or a digest, at most

log = structlog.get_logger(__name__)


class Driver:
    """Give it its `transport`, then `run` it. `disk_full`: nothing can be promised until there is room again."""

    transport: Links
    _beating: asyncio.TimerHandle

    def __init__(
        self, core: Core, admission: Admission, journal: Journal, store: SnapshotStore, tuning: Tuning
    ) -> None:
        self.disk_full = False
        self._core = core
        self._admission = admission
        self._journal = journal
        self._store = store
        self._tuning = tuning
        self._inbox: list[Callable[[], None]] = []
        self._woken: asyncio.Future[None] | None = None
        self._wanted = True
        self._stopping = False
        self._journal_thread = ThreadPoolExecutor(1, "journal")
        self._snapshot_thread = ThreadPoolExecutor(1, "snapshot")
        self._digest_thread = ThreadPoolExecutor(1, "digest")
        self._snapshot_job: asyncio.Task[None] | None = None
        self._check_job: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until `stop`. What is raised is fatal: StorageFailed, or a defect."""
        try:
            while not self._stopping:
                await self._wait_until_due()
                await self._turn()
        finally:
            jobs = [job for job in (self._snapshot_job, self._check_job) if job is not None]
            for job in jobs:
                job.cancel()
            if jobs:
                await asyncio.wait(jobs)
            self._journal_thread.shutdown()
            self._snapshot_thread.shutdown()
            self._digest_thread.shutdown()

    def stop(self) -> None:
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """There is something to do: another turn, soon."""
        self._wanted = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    # --- the loop ---

    async def _turn(self) -> None:
        inbox, self._inbox = self._inbox, []
        for deliver in inbox:
            deliver()
        self._core.turn()
        if self._journal.dirty:
            await self._sync()
        self._release(self._core.take_outbox())
        self._update_links()
        if self._core.wants_turn:
            self._wanted = True
        self._begin_snapshot_job()
        self._begin_check_job()

    async def _wait_until_due(self) -> None:
        """Sleep until there is something in the inbox or a timer of the engine is due."""
        due = self._core.engine.wake_at
        if self._wanted or self._inbox:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            self._woken = loop.create_future()
            timer = loop.call_later(max(0.001, due - syncobj.monotonicTime()), self.wake)
            await self._woken
            self._woken = None
            timer.cancel()
        self._wanted = False
        late = syncobj.monotonicTime() - due
        if late > LATE_S:
            self._core.engine.excuse(late)

    async def _sync(self) -> None:
        """A full disk holds this turn back, with its messages, until there is room; a failed sync ends the manager."""
        while True:
            try:
                await self._flush()
                break
            except DiskFull as error:
                if self._stopping:
                    raise StorageFailed("the manager was stopped while its disk was full", "make room") from error
                if not self.disk_full:
                    log.error("disk_full", cause=str(error), hint="the manager takes part again once there is room")
                self.disk_full = True
                self._core.leave_duties()
                self._core.proposals.expire(syncobj.monotonicTime())
                await asyncio.sleep(self._tuning.disk_full_retry_s)
        if self.disk_full:
            self.disk_full = False
            log.info("disk_has_room")

    async def _flush(self) -> None:
        """Meanwhile a leader goes on to say that it leads: that is on disk since it was elected, and only a disk that is
        slow for long is a reason to elect another. Nobody waits longer than he was promised to, even if the disk hangs.
        """
        self._beat_in_time(asyncio.get_running_loop().time() + self._tuning.election_max_s)
        try:
            await self._in_thread(self._journal_thread, self._journal.flush)
        finally:
            self._beating.cancel()

    def _beat_in_time(self, last: float) -> None:
        self._beating = asyncio.get_running_loop().call_later(self._tuning.beat_s, self._beat, last)

    def _beat(self, last: float) -> None:
        if asyncio.get_running_loop().time() < last + self._tuning.beat_s:
            for peer, message in self._core.engine.beats():
                self.transport.send(peer, [message])
        self._core.proposals.expire(syncobj.monotonicTime())
        self._beat_in_time(last)

    def _release(self, outbox: list[tuple[ManagerId, Message]]) -> None:
        by_peer: dict[ManagerId, list[Message]] = {}
        for peer, message in outbox:
            by_peer.setdefault(peer, []).append(message)
        for peer, messages in by_peer.items():
            self.transport.send(peer, messages)

    def _update_links(self) -> None:
        if self._admission.adopted:
            self._admission.adopted = False
            self.transport.set_addresses({})
        links = self._admission.links()
        if links is not None:
            self.transport.set_addresses(links)

    async def _in_thread(self, thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    # --- what the transport asks and tells ---

    def hello(self) -> Hello:
        return self._admission.hello()

    def judge(self, hello: Hello) -> str:
        cause = self._admission.judge(hello)
        self.wake()  # there may be a new link to dial
        return cause

    def refusal(self, cause: str) -> Refusal:
        return self._admission.refusal(cause)

    def on_refused(self, peer: ManagerId, refusal: Refusal) -> None:
        self._admission.refused(peer, refusal)

    def _post(self, deliver: Callable[[], None]) -> None:
        self._inbox.append(deliver)
        self.wake()

    def on_connected(self, peer: ManagerId, blank: bool) -> None:
        self._post(partial(self._core.connected, peer, blank))

    def on_disconnected(self, peer: ManagerId) -> None:
        self._post(partial(self._core.disconnected, peer))

    def on_lost(self, peer: ManagerId) -> None:
        self._post(partial(self._core.lost, peer))

    def on_message(self, link: Heard, message: Message) -> None:
        self._post(partial(self._deliver, link, message))

    def _deliver(self, link: Heard, message: Message) -> None:
        if link.current:
            self._core.deliver(link.peer, message)

    # --- snapshots (20, 21): one job at a time, in slices between turns, with its files in a thread of its own ---

    def _begin_snapshot_job(self) -> None:
        if self._snapshot_job is not None:
            if not self._snapshot_job.done():
                return
            self._snapshot_job.result()  # what a job doesn't handle ends the manager
            self._snapshot_job = None
        incoming = self._core.engine.incoming
        if incoming is not None and incoming.complete:
            self._snapshot_job = self._begin(self._install(incoming))
        elif self._core.snapshot_due:
            self._snapshot_job = self._begin(self._take_snapshot())

    def _begin(self, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job)
        task.add_done_callback(lambda _: self.wake())
        return task

    async def _take_snapshot(self) -> None:
        """The state as it is now, written while it goes on changing."""
        engine = self._core.engine
        index, term, began = engine.applied_index, engine.applied_term, syncobj.monotonicTime()
        membership = engine.membership_at(index)
        captured = capture(self._core.state)
        writer = None
        try:
            writer = await self._in_thread(self._snapshot_thread, partial(self._store.write, index, term, membership))
            async for chunk in pace(captured):
                await self._in_thread(self._snapshot_thread, partial(writer.add, chunk))
            await self._in_thread(self._snapshot_thread, writer.finish)
            published = await self._publish(writer.path)
            if published is not None:
                log.info("snapshot_taken", index=index, term=term, bytes=published.size, seconds=_since(began))
                self._post(partial(self._core.compact, index))
        except OSError as error:
            log.error("snapshot_failed", index=index, cause=str(error))
            if writer is not None:
                writer.abandon()
            await asyncio.sleep(self._tuning.snapshot_retry_s)
        finally:
            captured.close()

    async def _install(self, incoming: IncomingSnapshot) -> None:
        """Check and load what the leader sent, beside the state that is in use, and change over between two turns."""
        try:
            await self._in_thread(self._snapshot_thread, incoming.finish)
            state = await self._in_thread(self._snapshot_thread, lambda: restore(self._store.chunks(incoming.path)))
            published = await self._publish(incoming.path)
        except (OSError, StorageFailed, SnapshotInvalid) as error:
            log.error("snapshot_refused", index=incoming.index, cause=str(error))
            published = None
        if published is not None:
            self._post(partial(self._core.install, incoming.index, state))
            log.info("snapshot_installed", index=incoming.index, term=incoming.term)
        else:
            self._post(self._core.engine.drop_incoming)

    async def _publish(self, path: Path) -> Snapshot | None:
        snapshot = await self._in_thread(self._snapshot_thread, partial(self._store.publish, path))
        if snapshot is None:
            return None
        older = self._store.adopt(snapshot)
        if older is not None:
            await self._in_thread(self._snapshot_thread, partial(self._store.remove, older))
        return snapshot

    # --- checks of the managers' states: in slices too, and hashed in a thread of their own ---

    def _begin_check_job(self) -> None:
        if self._check_job is not None:
            if not self._check_job.done():
                return
            self._check_job.result()
            self._check_job = None
        check = self._core.take_check()
        if check is not None:
            self._check_job = self._begin(self._digest(check))

    async def _digest(self, check: Check) -> None:
        began = syncobj.monotonicTime()
        try:
            async for chunk in pace(check.captured):
                await self._in_thread(self._digest_thread, partial(check.digester.add, chunk))
        finally:
            check.close()
        log.info("state_digested", index=check.index, seconds=_since(began))
        self._post(partial(self._core.digested, check.index, check.digester.finish()))


async def pace(captured: Capture) -> AsyncIterator[bytes]:
    """Its chunks, with pauses between them, so that this takes no more than a fourth of the loop's time."""
    while True:
        began = syncobj.monotonicTime()
        chunk = captured.next_chunk()
        spent = syncobj.monotonicTime() - began
        if chunk is None:
            return
        yield chunk
        await asyncio.sleep(min(3 * spent, PAUSE_S))


def _since(began: float) -> float:
    return float(round(syncobj.monotonicTime() - began, 3))
