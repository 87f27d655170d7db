"""A client's desk: one try at one manager at a time, each on record as what it was.

A call that a manager refused, or that reached none, did not happen; one that was taken and never answered may have happened
at any time since. The checkers rely on that difference, so the client below makes no retries of its own: a workload that
wants one asks again, and that is another call.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeAlias, TypeVar

from chaos.amounts import amounts_of
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
from chaos.record import Asked, Record
from hasched.client.aio import AsyncClient
from hasched.model.errors import HaschedError, OutcomeUnknown
from hasched.model.parse import parse_spec
from hasched.model.states import OnDisconnect, TaskState
from hasched.model.views import JobView, Submitted

T = TypeVar("T")
Job: TypeAlias = Mapping[str, Any]  # a job's document (docs/jobs.md)

STALE_READ = "stale read"  # on record for what it must not show; it has no place in the order of all calls
RUN_LABEL = "chaos-run"  # of every job of a run
EFFECTS_LABEL = "chaos-effects"  # of jobs whose attempts leave effects
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
        self._gone: dict[str, None] = {}  # submissions of whose jobs this client was told that there are none
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

    def turn(self) -> None:
        """To another manager, if there is one."""
        others = [name for name in self.cluster.managers if name != self._manager]
        self._manager = self.chance.choice(others or self.cluster.managers)

    async def submit(self, job: Job, submission_id: str) -> Submitted | None:
        """One try. None if it failed, or nobody knows."""
        document = self._marked(job, submission_id)
        told = await self._call(
            SUBMIT,
            submission_id,
            lambda client: client.submit(document, submission_id),
            lambda told: Accepted(told.id, told.duplicate),
        )
        if told is not None:
            self.record.jobs.setdefault(submission_id, told.id)
        return told

    async def submit_until_known(self, job: Job, submission_id: str) -> Submitted | None:
        """Try after try under one id, until it is accepted. None if the end came first: then it may be there or not."""
        while True:
            told = await self.submit(job, submission_id)
            if told is not None or self.is_over:
                return told
            await self.pause(0.2)

    async def submit_many(self, jobs: Sequence[Job]) -> list[Submitted]:
        """One request for all of them, one try; gives those that were accepted."""
        ids = [self.new_id() for _ in jobs]
        documents = [self._marked(job, submission_id) for job, submission_id in zip(jobs, ids, strict=True)]
        client = await self._client()
        numbers = [self.record.history.begin(self.name, each, SUBMIT, self.record.now()) for each in ids]
        try:
            told = await client.submit_many(list(zip(ids, documents, strict=True)))
        except (HaschedError, OSError) as error:
            for number in numbers:
                self._ended(number, error)
            self.turn()
            return []
        accepted = []
        for number, each in zip(numbers, told, strict=True):
            if isinstance(each, HaschedError):
                self._ended(number, each)
            else:
                self.record.history.returned(number, self.record.now(), Accepted(each.id, each.duplicate))
                self.record.jobs.setdefault(each.submission_id, each.id)
                accepted.append(each)
        return accepted

    def _marked(self, job: Job, submission_id: str) -> Job:
        """The job as a part of this run, with what the judge must know of it on record."""
        spec = parse_spec(dict(job))
        self.record.asked[submission_id] = Asked(
            amounts=amounts_of(spec.resources),
            stops=spec.on_disconnect is OnDisconnect.STOP,
            tells=EFFECTS_LABEL in spec.labels,
        )
        return {**job, "labels": {**spec.labels, RUN_LABEL: str(self.record.began_ms)}}

    async def read(self, submission_id: str, job_id: int) -> JobView | None:
        """A linearizable read of a job that this client knows of. None if there is none, or no answer."""
        return await self._call(READ, submission_id, lambda client: client.job(job_id), seen)

    def is_gone(self, submission_id: str) -> bool:
        """Whether this client was told that there is no such job."""
        return submission_id in self._gone

    async def latest(self, limit: int, *, stale: bool = False) -> list[JobView]:
        """The latest jobs of this run: a linearizable read of each, or one of what a manager happens to have."""
        kind = STALE_READ if stale else READ
        labels = {RUN_LABEL: str(self.record.began_ms)}
        client = await self._client()
        begun_s = self.record.now()
        shown: list[JobView] = []
        try:
            async for job in client.jobs(labels=labels, limit=limit, stale=stale):
                shown.append(job)
                if len(shown) == limit:
                    break
        except (HaschedError, OSError) as error:
            self._ended(self.record.history.begin(self.name, "the latest jobs", kind, begun_s), error)
            self.turn()
            return []
        for job in shown:
            number = self.record.history.begin(self.name, job.submission_id, kind, begun_s)
            self.record.history.returned(number, self.record.now(), seen(job))
        return shown

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
            self.turn()
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
            if not self._answered(number, kind, key, error):
                self._ended(number, error)
                self.turn()
            return None
        self.record.history.returned(number, self.record.now(), result(told))
        return told

    def _answered(self, number: int, kind: str, key: str, error: HaschedError | OSError) -> bool:
        """Whether the refusal is an answer about the job, and on record as one."""
        code = str(error.extra.get("code", error.code)) if isinstance(error, HaschedError) else ""
        if code not in _ANSWERS:
            return False
        if code == NO_SUCH_JOB:
            self._gone[key] = None
        self.record.history.returned(number, self.record.now(), None if kind == READ else Refused(code))
        return True

    def _ended(self, number: int, error: HaschedError | OSError) -> None:
        if isinstance(error, OutcomeUnknown | OSError):
            self.record.history.unknown(number)
        else:
            self.record.history.failed(number, self.record.now())

    async def _client(self) -> AsyncClient:
        if self._manager not in self.cluster.managers:  # removed meanwhile
            self.turn()
        known = self._clients.get(self._manager)
        if known is None:
            known = self.cluster.client(self._manager, timeout_s=ANSWER_TIMEOUT_S, retries=False)
            self._clients[self._manager] = await self._stack.enter_async_context(known)
        return known


def seen(job: JobView) -> Seen:
    """A job as the checker knows it."""
    ended = TaskState[job.state].final
    return Seen(job.id, None if ended else job.cancelling, job.suspended, job.state if ended else "")
