"""The small jobs that workloads submit, and how a client keeps the queue short."""

from __future__ import annotations

from collections import deque
from typing import Any

from chaos.workloads.desk import Desk, Job
from hasched.model.states import TaskState

TRUE, FALSE = ["/bin/true"], ["/bin/false"]
RETRIES = {"max": 1, "backoff": {"initial": "200ms", "max": "1s"}}


def sleep(seconds: float) -> list[str]:
    return ["/bin/sleep", f"{seconds:.2f}"]


def job(command: list[str], cpu: str = "500m", **more: Any) -> Job:
    return {"command": command, "resources": {"cpu": cpu}, "retries": RETRIES, **more}


class Backlog:
    """Of one client: the jobs that it has not seen the end of. It makes no more than `most`, so that queues drain."""

    def __init__(self, desk: Desk, most: int) -> None:
        self._desk = desk
        self._most = most
        self._open: deque[tuple[str, int]] = deque()

    def add(self, submission_id: str, job_id: int) -> None:
        self._open.append((submission_id, job_id))

    async def room(self, count: int = 1) -> None:
        """Returns once there is room for so many more, or at the end of the run."""
        while len(self._open) + count > self._most and not self._desk.is_over:
            submission_id, job_id = self._open.popleft()
            seen = await self._desk.read(submission_id, job_id)
            if seen is None or not TaskState[seen.state].final:
                self._open.append((submission_id, job_id))
                await self._desk.pause(0.15)
