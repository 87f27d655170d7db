"""Several clients cancel, suspend, resume, delete and read the same job at once."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from chaos.workloads.base import Workload
from chaos.workloads.desk import Desk
from chaos.workloads.jobs import job, sleep
from hasched.model.states import TaskState

CALLS_ON_A_JOB = 14  # more make the search for an order of all calls expensive, and find no more
LAST_TRIES = 40


class Shared(msgspec.Struct):
    """A job that the clients race for."""

    submission_id: str
    job_id: int
    calls_left: int = CALLS_ON_A_JOB


class CancelRaces(Workload):
    name = "cancel-races"
    summary = "several clients cancel, suspend, resume, delete and read the same jobs"
    clients = 3

    def __init__(self) -> None:
        self._board: deque[Shared] = deque()

    async def run(self, desk: Desk) -> None:
        while not desk.is_over:
            if len(self._board) < 2:
                await self._post(desk)
            if self._board:
                await self._race(desk, desk.chance.choice(self._board))
            await desk.pause(0.15)
        while self._board:
            await self._finish(desk, self._board.popleft())

    async def _post(self, desk: Desk) -> None:
        submission_id = desk.new_id()
        document = job(sleep(desk.chance.uniform(0.1, 1.5)), cpu="250m", kill_grace="1s")
        told = await desk.submit_until_known(document, submission_id)
        if told is not None:
            self._board.append(Shared(submission_id, told.id))

    async def _race(self, desk: Desk, shared: Shared) -> None:
        shared.calls_left -= 1
        if shared.calls_left == 0:
            self._board.remove(shared)
            await self._finish(desk, shared)
            return
        calls = [desk.cancel, desk.suspend, desk.resume, desk.delete, desk.read]
        call = desk.chance.choices(calls, [1, 4, 5, 1, 3])[0]
        await call(shared.submission_id, shared.job_id)

    async def _finish(self, desk: Desk, shared: Shared) -> None:
        """Somebody may have suspended it for good, so it is cancelled; some are forgotten too, once they have ended."""
        forget = desk.chance.random() < 0.3
        for _ in range(LAST_TRIES):
            await desk.cancel(shared.submission_id, shared.job_id)
            seen = await desk.read(shared.submission_id, shared.job_id)
            if seen is not None and (seen.cancelling or TaskState[seen.state].final):
                if not forget or not TaskState[seen.state].final:
                    return
                await desk.delete(shared.submission_id, shared.job_id)
                return
            if desk.is_gone(shared.submission_id):
                return
            await asyncio.sleep(0.2)  # even if the run is over
