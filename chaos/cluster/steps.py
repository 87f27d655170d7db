"""Blocking steps in an asyncio program that are never left half done, and faults made of them.

A thread can't be interrupted. If the task that waits for it is cancelled, whoever cleans up must find the step finished, not
running on beside the cleaning; so cancellation is put off until it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from chaos.safety.ledger import Armed, Ledger
from chaos.safety.undo import Undo

T = TypeVar("T")


async def in_thread(step: Callable[[], T]) -> T:
    """What `step` gives or raises. Cancelled meanwhile: CancelledError once the step is over."""
    work = asyncio.ensure_future(asyncio.to_thread(step))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # looked at, so that nobody complains
        raise cancelled
    return work.result()


@asynccontextmanager
async def faulted(
    ledger: Ledger, undo: Undo, what: str, seconds: float, harm: Callable[[], None]
) -> AsyncIterator[None]:
    """The way back goes to the ledger, then the harm is done; at the end, whatever happens meanwhile, it is undone."""
    armed: list[Armed] = []

    def begin() -> None:
        armed.append(ledger.arm(undo, what, seconds))
        harm()

    try:
        await in_thread(begin)
        yield
    finally:
        for each in armed:
            await in_thread(each.undo)
