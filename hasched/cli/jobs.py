"""`hasched job`: looking at jobs, and steering them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from hasched.cli.answers import plan, why
from hasched.cli.exits import Exit, exit_for_error
from hasched.cli.patience import patience
from hasched.cli.runs import run, submit, wait
from hasched.cli.schemas import schema_command
from hasched.cli.settings import JobNumberType, Settings, json_option, namespace_option
from hasched.cli.tasks import STATE_NAMES, first_unsuccessful, logs, parse_target, tasks
from hasched.cli.templates import dispatch
from hasched.model.errors import (
    ClusterUnreachable,
    HaschedError,
    NoLeader,
    OutcomeUnknown,
    Unauthenticated,
)
from hasched.model.spec import MAX_TASKS

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.answers import Forecast
    from hasched.model.views import JobView

T = TypeVar("T")
NO_JOBS = "there are no jobs; try `hasched job run --wait -- echo hi`"


@click.group()
def job() -> None:
    """Run jobs, watch them, stop them."""


for command in (run, submit, dispatch, plan, why, wait, tasks, logs, schema_command("job")):
    job.add_command(command)


@job.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATE_NAMES, case_sensitive=False), help="Only these."
)
@click.option("--pending", is_flag=True, help="Only what waits, with when it is expected to start.")
@namespace_option("Only of this namespace; by default the context's, if it names one.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces, whatever the context names.")
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
    pending: bool,
    namespace: str | None,
    all_namespaces: bool,
    queue: str | None,
    name: str | None,
    labels: tuple[str, ...],
    actor: str | None,
    limit: int,
) -> None:
    """List jobs, newest first."""
    from hasched.cli.answer_text import brief_start
    from hasched.cli.output import print_json, print_table
    from hasched.cli.rendering import JOB_COLUMNS, JOB_SPARE, job_row
    from hasched.cli.specs import read_pairs

    wanted = read_pairs(labels, "--label")
    wanted_namespace = None if all_namespaces else settings.namespace(namespace)
    foreseen: Forecast | None = None
    if pending:  # of a job that runs, tasks may wait
        states = (*states, "PENDING", "SCHEDULED", "RUNNING")
    with settings.client() as client:
        jobs = client.jobs(
            state=states,
            namespace=wanted_namespace,
            queue=queue,
            name=name,
            labels=wanted,
            actor=actor,
            limit=min(limit + 1, 1000),
        )
        found = list(itertools.islice((job for job in jobs if not pending or "PENDING" in job.tasks), limit + 1))
        found, more = found[:limit], len(found) > limit
        if pending:
            with patience(settings, "working out when they will start"):
                foreseen = client.forecast()
    if settings.as_json:
        print_json({"jobs": found} | ({"forecast": foreseen} if foreseen is not None else {}))
    elif foreseen is not None:
        starts = {each.job_id: brief_start(each, foreseen.now_ms) for each in foreseen.jobs}
        rows = ((*job_row(job), starts.get(job.id, "")) for job in found)
        print_table((*JOB_COLUMNS, "starts"), rows, JOB_SPARE, "nothing waits")
    else:
        narrowed = any((states, wanted_namespace, queue, name, labels, actor))
        print_table(JOB_COLUMNS, map(job_row, found), JOB_SPARE, "no such job" if narrowed else NO_JOBS)
    if more and not settings.as_json:
        click.echo(f"hasched: these are the newest {limit}; --limit shows more", err=True)


@job.command()
@click.argument("target", metavar="JOB[.TASK]")
@json_option
@click.pass_obj
def show(settings: Settings, target: str) -> None:
    """Show a job, or with JOB.TASK one task and its attempts."""
    from hasched.cli.output import print_json
    from hasched.cli.rendering import print_job, print_task

    task_id, one_task = parse_target(target), "." in target
    with settings.client() as client:
        job = client.job(task_id.job_id)
        task = client.task(*task_id) if one_task or job.count == 1 else None
        failed = None if task is not None or settings.as_json else first_unsuccessful(client, job)
        starts = "" if one_task or settings.as_json else _expected_start(settings, client, job)
    if settings.as_json:
        print_json(task if one_task else job)
        return
    if not one_task:
        print_job(job, failed, starts)
        if task is not None:
            click.echo()
    if task is not None:
        print_task(task)


def _expected_start(settings: Settings, client: Client, job: JobView) -> str:
    """When what waits of a job will start, if anything does; nothing where that can't be said."""
    from hasched.cli.answer_text import expected_start

    if "PENDING" not in job.tasks:
        return ""
    try:
        with patience(settings, "working out when it will start"):
            foreseen = client.why(job.id, forecast=True).forecast
    except HaschedError:
        return ""  # the job itself is shown all the same
    return expected_start(foreseen, time.time_ns() // 1_000_000) if foreseen is not None else ""


@job.command()
@click.argument("job_id", type=JobNumberType(), metavar="JOB")
@json_option
@click.pass_obj
def status(settings: Settings, job_id: int) -> None:
    """Print a job's state in one line."""
    from hasched.cli.output import counts, print_json
    from hasched.cli.rendering import state_of

    with settings.client() as client:
        job = client.job(job_id)
    if settings.as_json:
        print_json(
            {"id": job.id, "state": job.state, "tasks": job.tasks, "reason": job.reason, "exit_code": job.exit_code}
        )
    else:
        click.echo(f"{state_of(job)}: {counts(job.tasks)}" + (f" ({job.reason.text})" if job.reason else ""))


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=JobNumberType(), metavar="JOB...")
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
@click.argument("job_ids", nargs=-1, required=True, type=JobNumberType(), metavar="JOB...")
@json_option
@click.pass_obj
def suspend(settings: Settings, job_ids: tuple[int, ...]) -> int:
    """Freeze jobs: nothing more starts, and what runs stands still."""
    with settings.client() as client:
        return _change_each(settings, "suspended", job_ids, client.suspend)


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=JobNumberType(), metavar="JOB...")
@json_option
@click.pass_obj
def resume(settings: Settings, job_ids: tuple[int, ...]) -> int:
    """Let suspended jobs go on."""
    with settings.client() as client:
        return _change_each(settings, "resumed", job_ids, client.resume)


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=JobNumberType(), metavar="JOB...")
@click.option("--priority", type=int, help="Larger starts first.")
@click.option("--priority-class", metavar="CLASS", help="low, medium, high, or one of your own: it gives the priority.")
@click.option("--queue", help="The queue to wait in.")
@click.option("--not-before", metavar="WHEN", help="A time, or for so long from now; 0: start at once.")
@click.option("--deadline", metavar="WHEN", help="A time, or after so long from now; 0: none.")
@click.option("--dependency", metavar="EXPR", help="Of a job that has not started: other jobs to wait for; '': none.")
@json_option
@click.pass_obj
def update(settings: Settings, /, job_ids: tuple[int, ...], **options: str | int | None) -> int:
    """Change where jobs stand in the order, their times, and what they wait for; what has no option stays as it is."""
    changes = {key: value for key, value in options.items() if value is not None}
    changes = {key: 0 if value == "0" else value for key, value in changes.items()}
    if not changes:
        raise click.UsageError("nothing to change: give an option")
    with settings.client() as client:
        code = _change_each(settings, "updated", job_ids, lambda job_id: client.update(job_id, changes))
        if "queue" in changes and not settings.as_json and code == Exit.OK:
            _warn_of_queue(client, str(changes["queue"]))
    return code


def _warn_of_queue(client: Client, name: str) -> None:
    """A queue needs no policy, so one that has none may be meant, or be a slip."""
    from hasched.model.kinds import suggest

    queues = [view.name for view in client.policies("queue").policies]
    if name not in queues and (meant := suggest(name, queues)):
        click.echo(f"hasched: no policy describes the queue {name}, so it is an ordinary one; {meant}", err=True)


@job.command()
@click.argument("job_ids", nargs=-1, required=True, type=JobNumberType(), metavar="JOB...")
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


def _change_each(settings: Settings, done: str, job_ids: tuple[int, ...], change: Callable[[int], JobView]) -> int:
    """Change every job and show it as it is then. Gives the exit code."""
    from hasched.cli.output import print_json
    from hasched.cli.rendering import state_of

    jobs, code = _try_each(settings, job_ids, change)
    if settings.as_json:
        print_json({"jobs": jobs})
    else:
        for job in jobs:
            click.echo(f"job {job.id} {done}: {state_of(job)}")
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
