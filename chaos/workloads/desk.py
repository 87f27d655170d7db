"""A client's desk: one try at one manager at a time, each on record as what it was.

A call that a manager refused, or that reached none, did not happen; one that was taken and never answered may have happened
at any time since. The checkers rely on that difference, so the client below makes no retries of its own: a workload that
wants one asks again, and that is another call.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from chaos.checkers.history import Ending
from chaos.checkers.models import (
    CANCEL,
    DELETE,
    JOB_ACTIVE,
    JOB_CANCELLING,
    JOB_ENDED,
    NO_SUCH_JOB,
    READ,
    RESUME,
    SUBMIT,
    SUSPEND,
    Accepted,
    Done,
    Refused,
    Seen,
)
from chaos.cluster.base import Cluster
from chaos.record import Record
from hasched.client.aio import AsyncClient
from hasched.client.calls import Document
from hasched.model.errors import HaschedError, OutcomeUnknown
from hasched.model.states import TaskState
from hasched.model.views import JobView, Submitted

T = TypeVar("T")

ANSWER_TIMEOUT_S = 5.0
_ANSWERS = (NO_SUCH_JOB, JOB_ENDED, JOB_CANCELLING, JOB_ACTIVE)  # refusals that tell something of the job's state


class Desk:
    """Of one client. Use it as an async context manager. It stays with one manager until that one fails it."""

    def __init__(self, name: str, cluster: Cluster, record: Record, seed: str, over: asyncio.Event) -> None:
        self.name = name
        self.cluster = cluster
        self.record = record
        self.chance = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self._over = over
        self._ids = 0
        self._clients: dict[str, AsyncClient] = {}
        self._stack = AsyncExitStack()
        self._manager = self.chance.choice(cluster.managers)

    async def __aenter__(self) -> Desk:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def pause(self, seconds: float) -> None:
        """About so long, and less if the end comes first."""
        try:
            async with asyncio.timeout(self.chance.uniform(0.5, 1.5) * seconds):
                await self._over.wait()
        except TimeoutError:
            return

    def new_id(self) -> str:
        """A submission id that no other client of this or another run has, and that can be found again in the report."""
        self._ids += 1
        return f"{self.record.began_ms}-{self.name}-{self._ids}"

    # --- calls ---

    async def submit(self, document: Document, submission_id: str) -> Submitted | None:
        """One try. None if it failed, or nobody knows."""
        return await self._call(
            SUBMIT,
            submission_id,
            lambda client: client.submit(document, submission_id),
            lambda told: Accepted(told.id, told.duplicate),
        )

    async def submit_until_known(self, document: Document, submission_id: str) -> Submitted | None:
        """Try after try under one id, until it is accepted. None if the end came first: then it may be there or not."""
        while True:
            told = await self.submit(document, submission_id)
            if told is not None or self.is_over:
                return told
            await self.pause(0.2)

    async def submit_many(self, documents: Sequence[Document]) -> list[Submitted]:
        """One request for all of them, one try; gives those that were accepted."""
        ids = [self.new_id() for _ in documents]
        numbers = [self.record.history.begin(self.name, each, SUBMIT, self.record.now()) for each in ids]
        try:
            client = await self._client()
            told = await client.submit_many(list(zip(ids, documents, strict=True)))
        except (HaschedError, OSError) as error:
            for number in numbers:
                self._ended(number, error)
            self._turn()
            return []
        for number, each in zip(numbers, told, strict=True):
            if isinstance(each, HaschedError):
                self._ended(number, each)
            else:
                self.record.history.returned(number, self.record.now(), Accepted(each.id, each.duplicate))
        return [each for each in told if not isinstance(each, HaschedError)]

    async def read(self, submission_id: str, job_id: int) -> JobView | None:
        """A linearizable read of a job that this client knows of. None if there is none, or no answer."""
        return await self._call(READ, submission_id, lambda client: client.job(job_id), seen)

    async def cancel(self, submission_id: str, job_id: int) -> None:
        await self._call(CANCEL, submission_id, lambda client: client.cancel(job_id, "chaos"), lambda _: Done())

    async def suspend(self, submission_id: str, job_id: int) -> None:
        await self._call(SUSPEND, submission_id, lambda client: client.suspend(job_id), lambda _: Done())

    async def resume(self, submission_id: str, job_id: int) -> None:
        await self._call(RESUME, submission_id, lambda client: client.resume(job_id), lambda _: Done())

    async def delete(self, submission_id: str, job_id: int) -> None:
        await self._call(DELETE, submission_id, lambda client: client.delete(job_id), lambda _: Done())

    async def look(self, call: Callable[[AsyncClient], Awaitable[T]]) -> T | None:
        """A call that no checker hears of: lists, stale reads. None if it failed."""
        try:
            return await call(await self._client())
        except (HaschedError, OSError):
            self._turn()
            return None

    # --- the record ---

    async def _call(
        self, kind: str, key: str, call: Callable[[AsyncClient], Awaitable[T]], result: Callable[[T], Any]
    ) -> T | None:
        client = await self._client()
        number = self.record.history.begin(self.name, key, kind, self.record.now())
        try:
            told = await call(client)
        except (HaschedError, OSError) as error:
            if not self._answered(number, kind, error):
                self._ended(number, error)
                self._turn()
            return None
        self.record.history.returned(number, self.record.now(), result(told))
        return told

    def _answered(self, number: int, kind: str, error: HaschedError | OSError) -> bool:
        """Whether the refusal is an answer about the job, and on record as one."""
        code = str(error.extra.get("code", error.code)) if isinstance(error, HaschedError) else ""
        if code not in _ANSWERS:
            return False
        self.record.history.returned(number, self.record.now(), None if kind == READ else Refused(code))
        return True

    def _ended(self, number: int, error: HaschedError | OSError) -> None:
        if isinstance(error, OutcomeUnknown | OSError):
            self.record.history.unknown(number)
        else:
            self.record.history.failed(number, self.record.now())

    def _turn(self) -> None:
        """To another manager, if there is one."""
        others = [name for name in self.cluster.managers if name != self._manager]
        self._manager = self.chance.choice(others or self.cluster.managers)

    async def _client(self) -> AsyncClient:
        if self._manager not in self.cluster.managers:  # removed meanwhile
            self._turn()
        known = self._clients.get(self._manager)
        if known is None:
            known = self.cluster.client(self._manager, timeout_s=ANSWER_TIMEOUT_S, retries=False)
            self._clients[self._manager] = await self._stack.enter_async_context(known)
        return known


def seen(job: JobView) -> Seen:
    """A job as the checker knows it."""
    return Seen(job.id, job.cancelling, job.suspended, job.state if TaskState[job.state].final else "")


def endings_of(record: Record, kind: str) -> dict[str, list[Ending]]:
    """How the calls of a kind ended, by key."""
    found: dict[str, list[Ending]] = {}
    for operation in record.history.operations():
        if operation.kind == kind:
            found.setdefault(operation.key, []).append(operation.ending)
    return found
