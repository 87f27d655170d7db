"""`hasched job`: looking at jobs, their tasks and logs, and steering them."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from hasched.cli.exits import Exit, exit_for_error
from hasched.cli.runs import run, submit, wait
from hasched.cli.settings import Settings, json_option
from hasched.model.errors import (
    BadRequest,
    ClusterUnreachable,
    HaschedError,
    NoLeader,
    OutcomeUnknown,
    Unauthenticated,
)
from hasched.model.ids import TaskId, parse_task_id
from hasched.model.spec import MAX_TASKS
from hasched.model.states import TaskState

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import JobView, TaskView

T = TypeVar("T")
STATE_NAMES = [state.name for state in TaskState]


@click.group()
def job() -> None:
    """Run jobs, watch them, stop them."""


for command in (run, submit, wait):
    job.add_command(command)


@job.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATE_NAMES, case_sensitive=False), help="Only these."
)
@click.option("--queue", help="Only of this queue.")
@click.option("--name", help="Only of this name.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only with this label.")
@click.option("--actor", metavar="USER", help="Only what this user submitted.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many, newest first."
)
@json_option
@click.pass_obj
def list_jobs(
    settings: Settings,
    /,
    *,
    states: tuple[str, ...],
    queue: str | None,
    name: str | None,
    labels: tuple[str, ...],
    actor: str | None,
    limit: int,
) -> None:
    """List jobs, newest first."""
    from hasched.cli.output import age, counts, print_json, print_table
    from hasched.cli.specs import read_pairs

    wanted = read_pairs(labels, "--label")
    with settings.client() as client:
        found = list(
            itertools.islice(
                client.jobs(state=states, queue=queue, name=name, labels=wanted, actor=actor, limit=min(limit, 1000)),
                limit,
            )
        )
    if settings.as_json:
        print_json({"jobs": found})
        return
    print_table(
        ("job", "name", "state", "tasks", "queue", "by", "age"),
        (
            (str(job.id), job.name, _state(job), counts(job.tasks), job.queue, job.actor, age(job.submitted_ms))
            for job in found
        ),
    )


@job.command()
@click.argument("target", metavar="JOB[.TASK]")
@json_option
@click.pass_obj
def show(settings: Settings, target: str) -> None:
    """Show a job, or with JOB.TASK one task and its attempts."""
    from hasched.cli.output import print_json

    task_id, one_task = _parse_target(target), "." in target
    with settings.client() as client:
        job = client.job(task_id.job_id)
        task = client.task(*task_id) if one_task or job.count == 1 else None
    if settings.as_json:
        print_json(task if one_task else job)
        return
    if not one_task:
        _print_job(job)
    if task is not None:
        _print_task(task)


@job.command()
@click.argument("job_id", type=int, metavar="JOB")
@json_option
@click.pass_obj
def status(settings: Settings, job_id: int) -> None:
    """Print a job's state in one line."""
    from hasched.cli.output import counts, print_json

    with settings.client() as client:
        job = client.job(job_id)
    if settings.as_json:
        print_json(
            {"id": job.id, "state": job.state, "tasks": job.tasks, "reason": job.reason, "exit_code": job.exit_code}
        )
    else:
        click.echo(f"{_state(job)}: {counts(job.tasks)}" + (f" ({job.reason.text})" if job.reason else ""))


@job.command()
@click.argument("target", metavar="JOB[.TASK]")
@click.option("--task", "index", type=click.IntRange(min=0), help="Which task of an array; 0 by default.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which attempt; the latest by default.")
@click.option("--stderr", is_flag=True, help="The error stream instead of the output.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt ends.")
@click.option("--tail", type=click.IntRange(min=1), metavar="BYTES", help="Only the last bytes.")
@json_option
@click.pass_obj
def logs(
    settings: Settings,
    /,
    *,
    target: str,
    index: int | None,
    attempt: int | None,
    stderr: bool,
    follow: bool,
    tail: int | None,
) -> None:
    """Print what a task wrote. --json gives one object with the text."""
    from hasched.cli.output import print_json

    task_id, stream = _parse_target(target), "stderr" if stderr else "stdout"
    if "." in target and index not in (None, task_id.index):
        raise click.UsageError(f"{target} names task {task_id.index}, and --task names {index}")
    where = task_id.index if index is None else index
    if settings.as_json and follow:
        raise BadRequest("--json and --follow exclude each other", "leave one out")
    with settings.client() as client:
        chunks = client.logs(task_id.job_id, where, stream=stream, attempt=attempt, tail=tail, follow=follow)
        if settings.as_json:
            text = b"".join(chunks).decode(errors="replace")
            print_json({"job_id": task_id.job_id, "task_index": where, "stream": stream, "text": text})
            return
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=int, metavar="JOB...")
@click.option(
    "--task", "tasks", multiple=True, type=click.IntRange(0, MAX_TASKS - 1), help="Only this task of an array."
)
@click.option("--reason", default="", help="Why; it is kept with the job.")
@json_option
@click.pass_obj
def cancel(settings: Settings, job_ids: tuple[int, ...], tasks: tuple[int, ...], reason: str) -> int:
    """Stop jobs: waiting tasks at once, running ones by TERM, their grace, KILL.

    A refusal doesn't stop the rest; the exit code is the first refusal's.
    """
    with settings.client() as client:
        return _change_each(settings, "cancelled", job_ids, lambda job_id: client.cancel(job_id, reason, list(tasks)))


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=int, metavar="JOB...")
@json_option
@click.pass_obj
def suspend(settings: Settings, job_ids: tuple[int, ...]) -> int:
    """Freeze jobs: nothing more starts, and what runs stands still."""
    with settings.client() as client:
        return _change_each(settings, "suspended", job_ids, client.suspend)


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=int, metavar="JOB...")
@json_option
@click.pass_obj
def resume(settings: Settings, job_ids: tuple[int, ...]) -> int:
    """Let suspended jobs go on."""
    with settings.client() as client:
        return _change_each(settings, "resumed", job_ids, client.resume)


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=int, metavar="JOB...")
@json_option
@click.pass_obj
def delete(settings: Settings, job_ids: tuple[int, ...]) -> int:
    """Forget jobs that have ended."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        deleted, code = _try_each(settings, job_ids, lambda job_id: _deleted(client, job_id))
    if settings.as_json:
        print_json({"deleted": deleted})
    else:
        for job_id in deleted:
            click.echo(f"job {job_id} deleted")
    return code


def _parse_target(text: str) -> TaskId:
    try:
        return parse_task_id(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="JOB[.TASK]") from None


def _change_each(settings: Settings, done: str, job_ids: tuple[int, ...], change: Callable[[int], JobView]) -> int:
    """Change every job and show it as it is then. Gives the exit code."""
    from hasched.cli.output import print_json

    jobs, code = _try_each(settings, job_ids, change)
    if settings.as_json:
        print_json({"jobs": jobs})
    else:
        for job in jobs:
            click.echo(f"job {job.id} {done}: {_state(job)}")
    return code


def _deleted(client: Client, job_id: int) -> int:
    client.delete(job_id)
    return job_id


def _try_each(settings: Settings, job_ids: tuple[int, ...], act: Callable[[int], T]) -> tuple[list[T], int]:
    """What came of each job that didn't refuse, and the exit code: of the first refusal; each is reported.

    A cluster that doesn't answer ends it, for the jobs that are left would only wait for it one by one.
    """
    from hasched.cli.main import report

    done, code = [], int(Exit.OK)
    for job_id in job_ids:
        try:
            done.append(act(job_id))
        except HaschedError as error:
            report(error, settings.as_json)
            code = code or int(exit_for_error(error))
            if isinstance(error, ClusterUnreachable | OutcomeUnknown | NoLeader | Unauthenticated):
                break
    return done, code


def _state(job: JobView) -> str:
    if TaskState[job.state].final:
        return job.state
    return f"{job.state} (cancelling)" if job.cancelling else f"{job.state} (suspended)" if job.suspended else job.state


def _print_job(job: JobView) -> None:
    from hasched.cli.output import counts, moment, pairs, print_fields, resources
    from hasched.model.units import format_duration

    spec = job.spec
    fields = [
        ("job", str(job.id)),
        ("name", job.name),
        ("state", _state(job)),
        ("reason", f"{job.reason.text} ({job.reason.code})" if job.reason else ""),
        ("tasks", counts(job.tasks)),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("queue", f"{job.queue}, priority {job.priority}"),
        ("by", job.actor),
        ("submitted", moment(job.submitted_ms)),
        ("started", moment(job.started_ms)),
        ("ended", moment(job.ended_ms)),
        ("submission id", job.submission_id),
    ]
    if spec is not None:
        fields += [
            ("command", shlex.join(spec.command) if spec.command else "(script)"),
            ("each task asks", resources(spec.resources)),
            ("timeout", format_duration(spec.timeout_ms) if spec.timeout_ms else ""),
            ("retries", f"{spec.retries.max}, {spec.retries.node_lost} more for lost nodes"),
            ("labels", pairs(spec.labels)),
        ]
    print_fields(fields)


def _print_task(task: TaskView) -> None:
    from hasched.cli.output import moment, print_fields, print_table, short_bytes, took

    click.echo()
    print_fields(
        [
            ("task", f"{task.job_id}.{task.task_index}"),
            ("state", task.state),
            ("reason", f"{task.reason.text} ({task.reason.code})" if task.reason else ""),
            ("node", task.node_id),
            ("output", task.output or ""),
        ]
    )
    if not task.attempts:
        return
    click.echo()
    print_table(
        ("attempt", "state", "node", "ended with", "started", "took", "CPU", "peak memory", "late report"),
        (
            (
                str(attempt.attempt),
                attempt.state,
                attempt.node_id,
                _ending(attempt.exit_code, attempt.signal),
                moment(attempt.started_ms),
                took(attempt.started_ms, attempt.ended_ms),
                f"{attempt.usage.cpu_ms / 1000:.2f}s",
                short_bytes(attempt.usage.peak_memory_bytes),
                f"refused: {attempt.late_report.state}" if attempt.late_report else "",
            )
            for attempt in task.attempts
        ),
    )


def _ending(exit_code: int | None, signal: int | None) -> str:
    if signal:
        return f"signal {signal}"
    return "" if exit_code is None else f"exit {exit_code}"
