"""A client outside that submits to every manager at once, one submission after another, and notes what was accepted when.

It has no policy of its own: what a manager refuses, or doesn't answer in time, is given up and the next is tried. So the
first submission that is accepted after a fault shows when the cluster as a whole accepts again, whoever leads.
"""

from __future__ import annotations

import asyncio
import bisect
import ssl
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import aiohttp

from chaos.checkers import durability
from hasched.client import calls
from hasched.client.tls import MANAGER_HOSTNAME, client_context
from hasched.model.errors import HaschedError
from hasched.model.views import ManagerView
from tests.support.cluster import ProcessCluster

NEVER_RUNS = {"command": ["/bin/true"], "resources": {"countables": {"never": 1}}}
ANSWER_TIMEOUT_S = 1.0
PAUSE_S = 0.01  # after an answer; what was refused is followed at once by a try elsewhere anyway
LOOK_PERIOD_S = 0.25


class Accepted(NamedTuple):
    """Begun and ended on the monotonic clock."""

    ended: float
    begun: float
    manager: str
    submission_id: str
    job_id: int


class Sight(NamedTuple):
    """How a manager described itself."""

    at: float
    manager: str
    role: str
    term: int


class Prober:
    """Probes `cluster` between `__enter__` and `__exit__`, in a thread of its own. Reading is safe meanwhile.

    `accepted` is in the order of its endings; `sights` are what the managers said of themselves meanwhile.
    """

    def __init__(self, cluster: ProcessCluster, pause_s: float = PAUSE_S) -> None:
        self._urls = {member["name"]: member["api"] for member in cluster.members}
        self._ca: Path = cluster.ca
        self._headers = {"Authorization": f"Bearer {cluster.token}"}
        self._pause_s = pause_s
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._stop = asyncio.Event()
        self.accepted: list[Accepted] = []
        self.sights: list[Sight] = []

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    # --- what was seen ---

    def next_accepted(self, after: float, patience_s: float = 60.0) -> Accepted:
        """The first to be accepted of all submissions that began after this moment."""
        deadline = time.monotonic() + patience_s
        with self._news:
            while True:
                for each in self.accepted[bisect.bisect_left(self.accepted, (after,)) :]:
                    if each.begun >= after:
                        return each
                left = deadline - time.monotonic()
                assert left > 0, f"nothing was accepted for {patience_s:.0f} s"
                self._news.wait(left)

    def gaps(self, begin: float, end: float) -> list[float]:
        """The times between one acceptance and the next within a span, its ends included."""
        inside = [each.ended for each in self.accepted if begin < each.ended < end]
        return [after - before for before, after in zip([begin, *inside], [*inside, end], strict=True)]

    def find_violations(self, present: Sequence[tuple[str, int]]) -> list[str]:
        """`present`: every job of the cluster as (submission id, job id), at the end."""
        return durability.check({each.submission_id: each.job_id for each in self.accepted}, (), present)

    # --- probing ---

    async def _run(self) -> None:
        tls = client_context(self._ca)
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as session:
            tasks = [
                asyncio.create_task(work(session, name)) for name in self._urls for work in (self._submit, self._look)
            ]
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            failed = [error for error in await asyncio.gather(*tasks, return_exceptions=True) if error]
            for error in failed:
                if not isinstance(error, asyncio.CancelledError):
                    raise error

    async def _submit(self, session: aiohttp.ClientSession, manager: str) -> None:
        while True:
            submission_id = uuid.uuid4().hex
            begun = time.monotonic()
            body = await self._ask(session, manager, calls.submit(NEVER_RUNS, submission_id))
            if body is not None:
                with self._news:
                    self.accepted.append(Accepted(time.monotonic(), begun, manager, submission_id, body.id))
                    self._news.notify_all()
            await asyncio.sleep(self._pause_s)

    async def _look(self, session: aiohttp.ClientSession, manager: str) -> None:
        while True:
            seen = await self._ask(session, manager, calls.Call("GET", "/v1/managers/self", ManagerView))
            if seen is not None:
                self.sights.append(Sight(time.monotonic(), manager, seen.role, seen.term))
            await asyncio.sleep(LOOK_PERIOD_S)

    async def _ask(self, session: aiohttp.ClientSession, manager: str, call: calls.Call[calls.T]) -> calls.T | None:
        """The answer, or None for anything else."""
        try:
            async with session.request(
                call.method,
                self._urls[manager] + call.path,
                data=call.body or None,
                headers=call.headers,
                server_hostname=MANAGER_HOSTNAME,
                timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S),
            ) as response:
                body = await response.read()
                return call.decode(body) if response.status < 400 else None
        except (OSError, aiohttp.ClientError, ssl.SSLError, HaschedError):
            return None


def present(cluster: ProcessCluster) -> list[tuple[str, int]]:
    """Every job of the cluster, as (submission id, job id)."""
    with cluster.client() as client:
        return [(job.submission_id, job.id) for job in client.jobs()]


def leaders_by_term(sights: Sequence[Sight]) -> Mapping[int, list[str]]:
    """Who was seen to lead, by term."""
    found: dict[int, list[str]] = {}
    for sight in sights:
        if sight.role == "leader" and sight.manager not in found.setdefault(sight.term, []):
            found[sight.term].append(sight.manager)
    return found


def find_rivals(sights: Sequence[Sight]) -> list[str]:
    """Raft allows one leader in each term."""
    seen = leaders_by_term(sights)
    return [f"{' and '.join(names)} led in term {term}" for term, names in seen.items() if len(names) > 1]
