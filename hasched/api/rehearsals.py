"""Questions about what would be, answered without holding up the manager.

To rehearse what follows means to copy the state and run the planner for minutes of somebody's patience, so it is done in a
process of its own (`rehearsal_process.py`): here the state is only encoded, in slices of a few milliseconds with pauses
between, as for a snapshot, and no more than a chunk of it is held. One question is worked on at a time and few may wait; the
process is started when it is needed and let go when nobody has asked for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

from hasched.api.rehearsal_process import ANSWER_S, PREFIX_BYTES, Answered, Failed, Reply, frame, read_length
from hasched.model.answers import HORIZON_MS, Forecast
from hasched.model.errors import Conflict, NotFound, Overloaded
from hasched.model.states import PlacementPolicy
from hasched.raft.driver import pace
from hasched.raft.replica import Replica
from hasched.scheduler.hypotheses import Impossible
from hasched.scheduler.questions import AskForecast, Question
from hasched.statemachine.snapshot import capture

MOST_WAITING = 8
IDLE_S = 60.0  # the process is let go after so long without a question
FORECAST_AGE_S = 5.0  # one forecast serves all who ask within so long

_A = TypeVar("_A", bound=msgspec.Struct)
_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(Reply)

log = structlog.get_logger(__name__)


class Rehearsals:
    """One manager's. `policy` is that of its planner. Close it when the manager stops."""

    def __init__(self, replica: Replica, policy: PlacementPolicy) -> None:
        self._replica = replica
        self._policy = policy
        self._turn = asyncio.Lock()
        self.waiting = 0
        self.process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._forecast: asyncio.Task[Forecast] | None = None
        self._forecast_at = 0.0

    def question(self, kind: Callable[..., Question], horizon_ms: int, **fields: object) -> Question:
        """A question of this kind that begins now."""
        now_ms = self._replica.clock_ms()
        return kind(now_ms=now_ms, until_ms=now_ms + horizon_ms, policy=self._policy, **fields)

    async def forecast(self) -> Forecast:
        """When what waits starts, as it looked at most FORECAST_AGE_S ago. Raises as `ask` does."""
        loop = asyncio.get_running_loop()
        task = self._forecast
        failed = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        if task is None or failed or (task.done() and loop.time() - self._forecast_at > FORECAST_AGE_S):
            self._forecast_at = loop.time()
            question = self.question(AskForecast, HORIZON_MS)
            task = self._forecast = asyncio.create_task(self.ask(question, Forecast))
        return await asyncio.shield(task)

    async def ask(self, question: Question, answer: type[_A]) -> _A:
        """Its answer, asked of the state as it is when its turn has come.

        Raises Overloaded if too many wait or it took too long, NotFound or Impossible if what is asked can't be supposed.
        """
        if self.waiting >= MOST_WAITING:
            raise Overloaded(f"{self.waiting} questions like this wait for their answers", "ask again in a moment")
        self.waiting += 1
        try:
            async with self._turn:
                reply = await self._work_out(question)
        finally:
            self.waiting -= 1
        match reply:
            case Answered(answer=data):
                return msgspec.msgpack.decode(data, type=answer)
            case Failed(code=code, cause=cause, hint=hint) if code.startswith("no_such_"):
                raise NotFound(cause, hint, code=code)
            case Failed(code=Impossible.code, cause=cause, hint=hint):
                raise Impossible(cause, hint, code=Impossible.code)
            case Failed(code=code, cause=cause, hint=hint):
                raise Conflict(cause, hint, code=code)

    async def close(self) -> None:
        if self._forecast is not None:
            self._forecast.cancel()
            await asyncio.wait([self._forecast])
        await self._let_go()

    async def _work_out(self, question: Question) -> Reply:
        if self._idle is not None:
            self._idle.cancel()
        process = await self._running()
        done = False
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._put(process, question)
                reply = await self._take(process)
            done = True
            return reply
        except TimeoutError:
            raise Overloaded(
                f"the answer was not ready within {ANSWER_S} s", "ask about less, or with a nearer horizon"
            ) from None
        except (OSError, asyncio.IncompleteReadError) as error:
            log.warning("rehearsal_failed", cause=str(error), status=process.returncode)
            raise Overloaded(
                "the process that works out the answer has ended: it took too much memory or time",
                "ask about less, or with a nearer horizon",
            ) from None
        finally:
            if done:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(IDLE_S, lambda: asyncio.ensure_future(self._let_go()))
            else:
                await self._let_go()  # whatever it is at, nobody waits for it any more

    async def _running(self) -> asyncio.subprocess.Process:
        if self.process is None or self.process.returncode is not None:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hasched.api.rehearsal_process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        return self.process

    async def _put(self, process: asyncio.subprocess.Process, question: Question) -> None:
        assert process.stdin is not None
        process.stdin.write(frame(_encoder.encode(question)))
        captured = capture(self._replica.state)
        try:
            async for chunk in pace(captured):
                process.stdin.write(frame(chunk))
                await process.stdin.drain()
        finally:
            captured.close()
        process.stdin.write(frame(b""))
        await process.stdin.drain()

    async def _take(self, process: asyncio.subprocess.Process) -> Reply:
        assert process.stdout is not None
        length = read_length(await process.stdout.readexactly(PREFIX_BYTES))
        reply: Reply = _reply_decoder.decode(await process.stdout.readexactly(length))
        return reply

    async def _let_go(self) -> None:
        """End the process, whatever it is at."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill it, and see it gone: asyncio waits for its pipes too, and one whose reader has stopped half-way never closes."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdout is not None:
        with contextlib.suppress(RuntimeError):  # somebody is reading it to its end already
            await process.stdout.read()
    await process.wait()
