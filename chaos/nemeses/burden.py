"""Jobs that a nemesis lays upon the cluster, and takes away again whatever became of its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.stage import Skipped, Stage
from hasched.client.calls import Document
from hasched.model.errors import Conflict, HaschedError, NotFound, OutcomeUnknown

TIMEOUT_S = 5.0
REMOVAL_S = 60.0
TOGETHER = 16
BUSY_S = 5.0


class Burden:
    """Use it as an async context manager. At its end every job that it may have submitted is cancelled."""

    def __init__(self, stage: Stage) -> None:
        self.client = stage.cluster.client(timeout_s=TIMEOUT_S)
        self._stage = stage
        self._jobs: dict[str, tuple[Document, int | None]] = {}  # by submission id; None: nobody knows its number yet
        self._refusals: dict[str, int] = {}

    @property
    def size(self) -> int:
        """How many jobs were submitted."""
        return len(self._jobs)

    async def submit(self, document: Document) -> None:
        """What comes of it is noted."""
        await self.submit_many([document])

    async def submit_many(self, documents: Sequence[Document]) -> None:
        """In one request."""
        named = [(self._new_id(), document) for document in documents]
        try:
            answers = await self.client.submit_many(named)
        except HaschedError as error:
            answers = [error] * len(named)
        for (key, document), answer in zip(named, answers, strict=True):
            if isinstance(answer, HaschedError):
                self._refusals[answer.code] = self._refusals.get(answer.code, 0) + 1
            if not isinstance(answer, HaschedError):
                self._jobs[key] = (document, answer.id)
            elif isinstance(answer, OutcomeUnknown):
                self._jobs[key] = (document, None)

    async def busy_agent(self) -> str:
        """A free agent that runs something; if there is none, a task is given to one. Raises Skipped."""
        found: list[str] = []

        async def find() -> list[str]:
            free = self._stage.free(self._stage.cluster.agents)
            nodes = (await self.client.nodes()).nodes
            found[:] = [node.id for node in nodes if node.id in free and node.running and node.connected]
            return found

        await self.submit({"name": "chaos-busy", "command": ["/bin/sleep", "30"]})
        if not await self._stage.eventually(find, BUSY_S):
            raise Skipped("no agent runs anything")
        return self._stage.chance.choice(found)

    async def __aenter__(self) -> Burden:
        return self

    async def __aexit__(self, *_: object) -> None:
        size = self.size
        try:
            async with asyncio.timeout(REMOVAL_S):
                while self._jobs:
                    await self._remove()
        except TimeoutError:
            self._stage.note(f"{len(self._jobs)} jobs could not be cancelled")
        finally:
            await self.client.close()
        self._stage.note(f"{size} jobs" + "".join(f", {count} {code}" for code, count in self._refusals.items()))

    async def _remove(self) -> None:
        """One round over those that are left."""
        turns = asyncio.Semaphore(TOGETHER)

        async def remove(key: str) -> None:
            async with turns:
                document, job_id = self._jobs[key]
                try:
                    if job_id is None:  # again under the same id: it is one job, and has a number
                        job_id = (await self.client.submit(document, key)).id
                        self._jobs[key] = (document, job_id)
                    await self.client.cancel(job_id, "chaos")
                except (Conflict, NotFound):
                    pass  # it has ended
                except HaschedError:
                    return  # next round
                del self._jobs[key]

        await asyncio.gather(*map(remove, list(self._jobs)))

    def _new_id(self) -> str:
        return f"chaos-{self._stage.record.began_ms}-{self._stage.chance.getrandbits(64):016x}"
