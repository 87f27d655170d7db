"""`hasched task`: what is done to one task: by operators, and by the task itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from hasched.cli.settings import Settings, json_option
from hasched.cli.tasks import parse_target
from hasched.model.errors import BadRequest

CHECKPOINT = "HASCHED_CHECKPOINT"


@click.group()
def task() -> None:
    """Have tasks make room, or tell of a checkpoint."""


@task.command()
@click.argument("target", metavar="JOB[.TASK]")
@click.option("--reason", default="", help="Why; it is kept with the attempt.")
@json_option
@click.pass_obj
def preempt(settings: Settings, target: str, reason: str) -> None:
    """Stop a task that runs, or all of a job, and let it wait for its next start.

    It is warned as its job asks for, no retry is used, and it keeps its place in line. Of a gang all tasks make room.
    """
    from hasched.cli.output import print_json

    task_id = parse_target(target)
    with settings.client() as client:
        job = client.preempt(task_id.job_id, reason, [task_id.index] if "." in target else [])
    if settings.as_json:
        print_json(job)
    else:
        click.echo(f"{target} is being preempted")


@task.command()
@json_option
@click.pass_obj
def checkpointed(settings: Settings) -> None:
    """Say from within a task that what it has done is saved, so that it won't have to be done again.

    The task that has the least to lose is preempted first. Its next attempt is told when it checkpointed last.
    """
    from hasched.cli.output import print_json

    path = os.environ.get(CHECKPOINT)
    if not path:
        raise BadRequest(f"{CHECKPOINT} is not set", "run this in a task: the agent sets it")
    now_ms = time.time_ns() // 1_000_000
    Path(path).write_text(f"{now_ms}\n")
    if settings.as_json:
        print_json({"checkpoint_ms": now_ms})
