"""`hasched workflow logs`: what the tasks of an execution wrote, those of the executions within it too."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from hasched.cli.settings import Settings, json_option
from hasched.model.errors import NotFound

if TYPE_CHECKING:
    from hasched.client.sync import Client

_PLACE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?:\[([0-9]{1,6})\])?")


class _Place(NamedTuple):
    """A task, or one instance of it."""

    task: str
    number: int | None


class _Run(NamedTuple):
    """An instance that has a job. `recalled`: what it left was left before, and that job may be gone."""

    name: str
    job_id: int
    recalled: bool


@click.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@click.argument("task", required=False, metavar="[TASK[ITEM]]")
@click.option("--stderr", is_flag=True, help="What was written to stderr.")
@click.option("--tail", type=click.IntRange(min=1), metavar="BYTES", help="Only so much of the end of each.")
@json_option
@click.pass_obj
def logs(settings: Settings, /, *, execution_id: int, task: str | None, stderr: bool, tail: int | None) -> None:
    """Print what the tasks of an execution wrote, one after the other; or a single one, of a fan-out `split[3]`.

    Tasks of a workflow within are `outer.inner`, `outer[2].inner`. --json gives a list with one object for each.
    """
    from hasched.cli.output import print_json

    path = _read_path(task) if task else ()
    stream = "stderr" if stderr else "stdout"
    found: list[dict[str, object]] = []
    with settings.client() as client:
        for run in _runs_of(client, execution_id, path, ""):
            if not settings.as_json:
                _print_log(client, run, stream, tail)
                continue
            try:
                text = b"".join(client.logs(run.job_id, 0, stream=stream, tail=tail)).decode(errors="replace")
            except NotFound:
                if not run.recalled:
                    raise
                continue
            found.append({"task": run.name, "job_id": run.job_id, "stream": stream, "text": text})
    if settings.as_json:
        print_json(found)


def _read_path(written: str) -> tuple[_Place, ...]:
    places = [_PLACE.fullmatch(each) for each in written.split(".")]
    if not all(places):
        raise click.BadParameter(f"{written!r} is not TASK, TASK[ITEM] or TASK.INNER", param_hint="TASK")
    return tuple(_Place(place[1], int(place[2]) if place[2] else None) for place in places if place)


def _runs_of(client: Client, execution_id: int, path: tuple[_Place, ...], prefix: str) -> Iterator[_Run]:
    """The instances that a path names, all of them without one. Raises NotFound if it names nothing that has run."""
    view = client.execution(execution_id)
    place, within = (path[0], path[1:]) if path else (None, ())
    see = f"`hasched workflow show {execution_id}`"
    tasks = [each for each in view.tasks or [] if each.count and (place is None or each.name == place.task)]
    if place is not None and not tasks:
        raise NotFound(f"execution {execution_id} has begun no task {place.task}", see)
    for task in tasks:
        if task.kind in ("approval", "check", "webhook") or (task.kind == "job" and within):
            if place is not None:
                raise NotFound(f"{prefix}{task.name} has no {'logs' if not within else 'tasks within'}", see)
            continue
        wanted = None if place is None else place.number
        if wanted is not None and wanted >= task.count:
            raise NotFound(f"{prefix}{task.name} has {task.count} instances, counted from 0: there is no {wanted}", see)
        for instance in client.instances(execution_id, task.name):
            if wanted not in (None, instance.index):
                continue
            name = f"{prefix}{task.name}[{instance.index}]" if task.fans_out else f"{prefix}{task.name}"
            if instance.job and task.kind == "workflow":
                yield from _runs_of(client, instance.job, within, f"{name}.")
            elif instance.job:
                yield _Run(name, instance.job, bool(instance.memo_of))
            elif wanted is not None:
                raise NotFound(f"{name} has not run", see)


def _print_log(client: Client, run: _Run, stream: str, tail: int | None) -> None:
    from hasched.model.errors import HaschedError

    click.echo(f"==> {run.name} (job {run.job_id})", err=True)
    try:
        for piece in client.logs(run.job_id, 0, stream=stream, tail=tail):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except HaschedError as error:
        click.echo(f"hasched: {error.cause}", err=True)
