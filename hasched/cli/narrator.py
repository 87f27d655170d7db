"""What stderr says while somebody waits for jobs: why the work doesn't begin, and how far an array has come."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType

import click

from hasched.cli.output import counts
from hasched.cli.settings import Settings
from hasched.model.errors import HaschedError
from hasched.model.states import TaskState
from hasched.model.views import JobView

PATIENCE_S = 2.0
PROGRESS_INTERVAL_S = 5.0


class Narrator:
    """Speaks of the first of `job_ids` that goes on, on a thread and a connection of its own.

    A job that is still PENDING after PATIENCE_S has its reason said once; an array's counts are said again, no more often
    than every PROGRESS_INTERVAL_S, when they have changed.
    """

    def __init__(self, settings: Settings, job_ids: Sequence[int]) -> None:
        self._settings = settings
        self._waiting = list(job_ids)
        self._explained: set[int] = set()
        self._told: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="narrator", daemon=True)

    def _run(self) -> None:
        if self._over.wait(PATIENCE_S):
            return
        try:
            with self._settings.client(quiet=True) as client:
                while self._waiting:
                    job = client.job(self._waiting[0])
                    if self._over.is_set():
                        return
                    if TaskState[job.state].final:
                        self._waiting.pop(0)
                        continue
                    self._speak(job)
                    if self._over.wait(PROGRESS_INTERVAL_S):
                        return
        except HaschedError:
            return  # Who waits meets the same, and reports it; this was only to keep them company.

    def _speak(self, job: JobView) -> None:
        if job.state == TaskState.PENDING.name:
            if job.id not in self._explained and (why := why_waiting(job)):
                self._explained.add(job.id)
                click.echo(why, err=True)
        elif job.count > 1 and self._told.get(job.id) != (told := counts(job.tasks)):
            self._told[job.id] = told
            click.echo(f"hasched: job {job.id}: {told}", err=True)

    def __enter__(self) -> Narrator:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()  # The thread is a daemon: nobody waits for what it may still be asking.


def why_waiting(job: JobView) -> str:
    """The sentence for a job none of whose tasks has begun; empty for any other."""
    if job.state != TaskState.PENDING.name or job.reason is None:
        return ""
    return f"hasched: job {job.id} is waiting: {job.reason.text}"
