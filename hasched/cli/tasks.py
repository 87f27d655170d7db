"""`hasched job tasks` and `job logs`: the tasks of a job, those that failed among them, and what a task wrote."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import click

from hasched.cli.settings import JobNumberType, Settings, json_option
from hasched.model.errors import BadRequest
from hasched.model.ids import TaskId, parse_task_id
from hasched.model.states import TaskState

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import JobView, TaskView

STATE_NAMES = [state.name for state in TaskState]


@click.command()
@click.argument("job_id", type=JobNumberType(), metavar="JOB")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATE_NAMES, case_sensitive=False),
    help="Only these; may be repeated.",
)
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="At most so many, by index."
)
@json_option
@click.pass_obj
def tasks(settings: Settings, job_id: int, states: tuple[str, ...], limit: int) -> None:
    """List the tasks of a job: `--state FAILED` finds those that failed."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        found = list(itertools.islice(client.tasks(job_id, state=states), limit + 1))
    shown, more = found[:limit], len(found) > limit
    if settings.as_json:
        print_json({"tasks": shown, "more": more})
        return
    print_table(
        ("task", "state", "node", "attempt", "ended with", "reason"),
        (
            (
                f"{task.job_id}.{task.task_index}",
                task.state,
                task.node_id,
                str(task.attempt or ""),
                ending(task.exit_code, task.signal),
                task.reason.text if task.reason else "",
            )
            for task in shown
        ),
    )
    if more:
        click.echo(f"hasched: these are the first {limit}; --limit shows more", err=True)


@click.command()
@click.argument("target", metavar="JOB[.TASK]")
@click.option(
    "--task",
    "index",
    type=click.IntRange(min=0),
    help="Which task of an array; by default the first that did not succeed, else 0.",
)
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

    task_id, stream = parse_target(target), "stderr" if stderr else "stdout"
    if "." in target:
        if index not in (None, task_id.index):
            raise click.UsageError(f"{target} names task {task_id.index}, and --task names {index}")
        index = task_id.index
    if settings.as_json and follow:
        raise BadRequest("--json and --follow exclude each other", "leave one out")
    with settings.client() as client:
        where = _choose_task(settings, client, task_id.job_id) if index is None else index
        chunks = client.logs(task_id.job_id, where, stream=stream, attempt=attempt, tail=tail, follow=follow)
        if settings.as_json:
            text = b"".join(chunks).decode(errors="replace")
            print_json({"job_id": task_id.job_id, "task_index": where, "stream": stream, "text": text})
            return
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def parse_target(text: str) -> TaskId:
    """The task that `JOB` or `JOB.TASK` names on the command line."""
    try:
        return parse_task_id(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="JOB[.TASK]") from None


def first_unsuccessful(client: Client, job: JobView) -> TaskView | None:
    """The task of the lowest index that has ended and did not succeed, if there is one so far."""
    states = [name for name in job.tasks if TaskState[name].final and name != TaskState.SUCCEEDED.name]
    firsts = [next(iter(client.tasks(job.id, state=state)), None) for state in states]
    return min((task for task in firsts if task is not None), key=lambda task: task.task_index, default=None)


def ending(exit_code: int | None, signal: int | None) -> str:
    """How a command ended: `exit 3`, `signal 9`; empty where it never ran to its end."""
    if signal:
        return f"signal {signal}"
    return "" if exit_code is None else f"exit {exit_code}"


def summary(task: TaskView) -> str:
    """`7.3 FAILED: exit 1`: which task, how it ended, and why."""
    why = task.reason.text if task.reason else ending(task.exit_code, task.signal)
    return f"{task.job_id}.{task.task_index} {task.state}" + (f": {why}" if why else "")


def _choose_task(settings: Settings, client: Client, job_id: int) -> int:
    """The task to show where none was named; of an array stderr says which."""
    job = client.job(job_id)
    if job.count == 1:
        return 0
    failed = first_unsuccessful(client, job)
    if not settings.as_json:
        chosen = f"{summary(failed)}, the first that did not succeed" if failed else f"{job_id}.0 of {job.count}"
        click.echo(f"hasched: task {chosen}; --task names another", err=True)
    return failed.task_index if failed else 0
