"""A process that works out an answer is ended wherever it stands."""

from __future__ import annotations

import asyncio

from hasched.api.rehearsals import end


async def test_one_whose_answer_nobody_reads_any_more_is_ended() -> None:
    process = await asyncio.create_subprocess_exec("yes", stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readexactly(1)
    while not process.stdout._paused:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await end(process)
    assert process.returncode == -9
