"""Watches a run from outside: how each manager describes itself, what happens, and what attempts leave behind.

Each manager is asked by itself and tells its events by itself, so nothing is seen through another one's eyes. The streams
together give one record of events (`chaos.merging`). Where they can't, that is on record as a gap.
"""

from __future__ import annotations

import asyncio
import uuid

from chaos.amounts import amounts_of
from chaos.cluster.base import Cluster
from chaos.effects import EffectReader, file_of
from chaos.errors import MachineLacks, Unsettled
from chaos.merging import Merge
from chaos.record import SILENT, Record, Sight
from hasched.client.aio import AsyncClient
from hasched.client.calls import after_index
from hasched.model.errors import EventsCompacted, HaschedError

LOOK_EVERY_S = 0.5
LOOK_TIMEOUT_S = 2.0
REOPEN_S = 0.3
GAP_AFTER_S = 15.0  # without any stream, while managers say that they hold no more what comes next
CATCH_UP_S = 30.0


class Observer:
    """Watches while it is entered: from before the first call until every job has ended. Raises Unsettled at its beginning
    if the cluster doesn't say what it is."""

    def __init__(self, cluster: Cluster, record: Record) -> None:
        self._cluster = cluster
        self._record = record
        self._effects = self._read_effects()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._opened_at: dict[str, float] = {}  # streams that have not broken since
        self._compacted: dict[str, str] = {}  # who said that it holds nothing right after this event

    def _read_effects(self) -> EffectReader | None:
        try:
            return EffectReader(file_of(self._cluster, self._record), self._record)
        except MachineLacks as why:
            self._record.note(f"nobody sees what attempts do: {why.cause}")
            return None

    async def __aenter__(self) -> Observer:
        await self._begin()
        if self._effects is not None:
            self._effects.make()
        self._keeping = asyncio.create_task(self._keep(), name="observer")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self._catch_up()
        finally:
            tasks = [self._keeping, *self._watches.values()]
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            if self._effects is not None:
                self._effects.close()
        for task, error in zip(tasks, ended, strict=True):
            if isinstance(error, Exception):
                self._record.note(f"the {task.get_name()} ended by {type(error).__name__}: {error}")
                if kind is None:
                    raise error

    async def _begin(self) -> None:
        """Take down the nodes as of some log entry, and follow the events from there."""
        try:
            async with self._cluster.client() as client:
                while True:
                    anchor = (await client.cluster()).applied_index
                    nodes = (await client.nodes()).nodes
                    if all(node.log_index <= anchor for node in nodes):
                        break
        except HaschedError as error:
            raise Unsettled(f"the cluster can't be observed: {error.cause}", "see the managers' logs") from error
        self._record.anchor = anchor
        self._record.offers = {node.id: amounts_of(node.total) for node in nodes}
        self._merge = Merge(self._record, after_index(anchor))

    async def _keep(self) -> None:
        """A watch over each manager, whoever they are at the time."""
        alone_since_s = self._record.now()
        while True:
            managers = self._cluster.managers
            for name in managers:
                if name not in self._watches:
                    self._watches[name] = asyncio.create_task(self._watch(name), name=f"watch over {name}")
                elif self._watches[name].done():
                    self._watches[name].result()
            for name in [name for name in self._watches if name not in managers]:
                self._watches.pop(name).cancel()
            if self._effects is not None:
                self._effects.read()
            if self._is_told() or self._merge.last_id not in self._compacted.values():
                alone_since_s = self._record.now()
            elif self._record.now() - alone_since_s > GAP_AFTER_S:
                await self._leap()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _watch(self, name: str) -> None:
        client = self._cluster.client(name, timeout_s=LOOK_TIMEOUT_S, retries=False)
        async with client, asyncio.TaskGroup() as group:
            group.create_task(self._look(name, client))
            group.create_task(self._follow(name, client))

    async def _look(self, name: str, client: AsyncClient) -> None:
        restarts = self._cluster.processes.restarts
        while True:
            life = restarts(name)
            try:
                told = await client.manager()
            except (HaschedError, OSError):
                sight = Sight(at_s=self._record.now(), manager=name, role=SILENT, life=life)
            else:
                sight = Sight(
                    at_s=self._record.now(),
                    manager=name,
                    role=told.role,
                    term=told.term,
                    commit_index=told.commit_index,
                    applied_index=told.applied_index,
                    life=life,
                )
            if restarts(name) == life:  # else nobody knows which of its lives this was
                self._record.sights.append(sight)
            await asyncio.sleep(LOOK_EVERY_S)

    def _is_told(self) -> bool:
        """Whether some stream is open. One that is quiet may still be opening, which takes no longer than its timeout."""
        return any(self._record.now() - at_s > 2 * LOOK_TIMEOUT_S for at_s in self._opened_at.values())

    async def _follow(self, name: str, client: AsyncClient) -> None:
        while True:
            after_id = self._merge.last_id
            self._merge.opened(name)
            self._opened_at[name] = self._record.now()
            try:
                async for event in client.events(after_id):
                    self._merge.take(name, event)
            except EventsCompacted:
                self._compacted[name] = after_id
            except (HaschedError, OSError):
                pass
            finally:
                self._opened_at.pop(name, None)
            await asyncio.sleep(REOPEN_S)

    async def _leap(self) -> None:
        """No manager holds what comes next. Go on from where they are now."""
        try:
            async with self._cluster.client(timeout_s=LOOK_TIMEOUT_S) as client:
                index = (await client.cluster()).applied_index
        except HaschedError:
            return
        self._merge.gap(after_index(index), "no manager holds them any more")

    async def _catch_up(self) -> None:
        """Until the record holds everything up to now. A job that nobody waits for marks the place."""
        mark = f"{self._record.began_ms}-mark-{uuid.uuid4().hex[:8]}"
        try:
            async with asyncio.timeout(CATCH_UP_S):
                async with self._cluster.client() as client:
                    await client.submit({"command": ["/bin/true"], "resources": {"cpu": "10m"}}, mark)
                while not self._has_seen(mark):  # noqa: ASYNC110 - whichever stream tells it
                    await asyncio.sleep(REOPEN_S)
        except (HaschedError, TimeoutError) as error:
            why = error.cause if isinstance(error, HaschedError) else f"no stream told of it within {CATCH_UP_S:.0f} s"
            self._merge.gap("the end", f"a last job to mark the place was not seen: {why}")

    def _has_seen(self, submission_id: str) -> bool:
        return any(
            event.type == "JobSubmitted" and event.data.get("submission_id") == submission_id
            for event in reversed(self._record.events[-2000:])
        )
