"""Waiting for a job: its task's output on our own streams as it comes, a progress bar for an array, then the exit code."""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from contextlib import nullcontext
from types import TracebackType
from typing import BinaryIO

import click

from hasched.cli.exits import Exit, exit_for_job
from hasched.cli.narrator import PATIENCE_S, Narrator, why_waiting
from hasched.cli.settings import Settings
from hasched.cli.tasks import first_unsuccessful, summary
from hasched.client.sync import Client
from hasched.model.errors import EventsCompacted, HaschedError, NotFound
from hasched.model.states import TaskState
from hasched.model.views import JobView

PROGRESS_INTERVAL_S = 0.2
FOLLOWED = ("AttemptStarted", "AttemptEnded", "JobEnded", "JobDeleted", "JobExpired")


class OutputLost(HaschedError):
    """The job succeeded, and what it wrote could not be shown whole."""

    code = "output_lost"
    status = 503
    title = "Output could not be read"


class WaitTimedOut(click.ClickException):
    """The wait is over and the job is not."""

    code = "wait_timed_out"
    exit_code = int(Exit.TIMED_OUT)


def follow_task(settings: Settings, client: Client, job_id: int, after: str) -> JobView:
    """Copy stdout and stderr of task 0, every attempt in turn, until the job ends. `after` is an event before its first."""
    with (
        Narrator(settings, [job_id]),
        _Copier(settings, job_id, "stdout", sys.stdout.buffer) as out,
        _Copier(settings, job_id, "stderr", sys.stderr.buffer) as err,
    ):
        try:
            for event in client.events(job=job_id, after=after, types=FOLLOWED):
                if event.attempt is not None:
                    out.want(event.attempt)
                    err.want(event.attempt)
                elif event.type in ("JobDeleted", "JobExpired"):
                    raise NotFound(f"job {job_id} was deleted", "its history is gone with it")
                elif event.type == "JobEnded":
                    break
        except EventsCompacted:
            latest = client.wait(job_id)
            for attempt in range(1, client.task(latest.id, 0).attempt + 1):
                out.want(attempt)
                err.want(attempt)
    job = client.job(job_id)
    if (out.lost or err.lost) and job.state == TaskState.SUCCEEDED.name:
        raise OutputLost(
            f"job {job_id} succeeded, but not all of its output could be read", f"`hasched job logs {job_id}`"
        )
    return job


class _Copier:
    """Copies one stream of one attempt after the other, on a thread and a connection of its own."""

    def __init__(self, settings: Settings, job_id: int, stream: str, target: BinaryIO) -> None:
        self._settings = settings
        self._job_id = job_id
        self._stream = stream
        self._target = target
        self._newest = 0
        self._attempts: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self.lost = False  # whether something could not be copied
        self._thread = threading.Thread(target=self._run, name=f"copy-{stream}", daemon=True)

    def want(self, attempt: int) -> None:
        """Copy this attempt's output too; each is asked for once, in rising order."""
        if attempt > self._newest:
            self._newest = attempt
            self._attempts.put(attempt)

    def _run(self) -> None:
        try:
            with self._settings.client() as client:
                while (attempt := self._attempts.get()) is not None:
                    self._copy(client, attempt)
        except Exception as error:  # Raised again on the main thread, by __exit__.
            self._failure = error

    def _copy(self, client: Client, attempt: int) -> None:
        try:
            pieces = client.logs(
                self._job_id,
                0,
                stream=self._stream,
                attempt=attempt,
                follow=True,
                keep_trying=lambda: not self._ended.is_set(),
            )
            for data in pieces:
                self._target.write(data)
                self._target.flush()
        except HaschedError as error:
            self.lost = True
            click.echo(f"hasched: {self._stream} of attempt {attempt} can't be read: {error.cause}", err=True)

    def __enter__(self) -> _Copier:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return  # Interrupted: the thread is a daemon, and nobody wants the rest.
        self._ended.set()
        self._attempts.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def wait_for_jobs(settings: Settings, client: Client, job_ids: list[int], timeout_ms: int | None) -> list[JobView]:
    """Wait until all have ended: with a progress bar on a terminal, in silence for programs. Raises WaitTimedOut."""
    deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
    if sys.stderr.isatty() and not settings.as_json:
        return _wait_with_progress(client, job_ids, deadline)
    with nullcontext() if settings.as_json else Narrator(settings, job_ids):
        return [_wait(client, job_id, deadline) for job_id in job_ids]


def _wait(client: Client, job_id: int, deadline: float | None) -> JobView:
    job = client.wait(job_id, timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
    if not TaskState[job.state].final:
        raise _timed_out(job)
    return job


def _wait_with_progress(client: Client, job_ids: list[int], deadline: float | None) -> list[JobView]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    ended: list[JobView] = []
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        for job_id in job_ids:
            row = progress.add_task(f"job {job_id}", total=None, note="")
            explain_at = time.monotonic() + PATIENCE_S
            while True:
                job = client.job(job_id)
                done = sum(number for state, number in job.tasks.items() if TaskState[state].final)
                failed = done - job.tasks.get(TaskState.SUCCEEDED.name, 0)
                note = f"{job.tasks.get(TaskState.RUNNING.name, 0)} running" + (f", {failed} failed" if failed else "")
                progress.update(row, total=job.count, completed=done, note=note)
                if time.monotonic() >= explain_at and (why := why_waiting(job)):
                    progress.console.print(why, markup=False, highlight=False)
                    explain_at = math.inf
                if TaskState[job.state].final:
                    break
                if deadline is not None and time.monotonic() >= deadline:
                    raise _timed_out(job)
                time.sleep(PROGRESS_INTERVAL_S)
            progress.update(row, note=job.state.lower())
            ended.append(job)
    return ended


def _timed_out(job: JobView) -> WaitTimedOut:
    return WaitTimedOut(f"job {job.id} is still {job.state}; it goes on")


def conclude(settings: Settings, client: Client, job: JobView, *, as_here: bool = False) -> int:
    """The code that stands for an ended job, see `exits.exit_for_job`; a person is told on stderr why it isn't 0.

    `as_here`: the command is to look as if it ran here, where its own exit code would be all that is said.
    """
    if job.state == TaskState.SUCCEEDED.name:
        return Exit.OK
    failed = first_unsuccessful(client, job)
    if failed is not None and not settings.as_json:
        ran_to_its_end = failed.state == TaskState.FAILED.name and failed.exit_code is not None
        if not (as_here and ran_to_its_end):
            click.echo(f"hasched: task {summary(failed)}", err=True)
    return exit_for_job(job, failed)
