"""`hasched job run`, `submit` and `wait`: handing work in, and seeing it through."""

from __future__ import annotations

import uuid
from typing import IO, TYPE_CHECKING, Any

import click

from hasched.cli.exits import Exit
from hasched.cli.settings import DurationType, JobNumberType, Settings, json_option, namespace_option
from hasched.model.errors import OutcomeUnknown, SpecInvalid

if TYPE_CHECKING:
    from hasched.model.views import Submitted

_CHECK_HELP = "Submit only while the plan that printed this check index still holds."
_ESTIMATE_HELP = "Only say what it would cost; nothing is submitted."
_WAIT_HELP = "Stay until it ends, show a single task's output as it comes, and exit with the job's own code."


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]...")
@click.option("--name", help="The job's name; by default the command's.")
@click.option(
    "--count", type=click.IntRange(min=1), help="Run an array of so many tasks; each gets HASCHED_TASK_INDEX."
)
@click.option("--max-running", type=click.IntRange(min=1), help="At most so many of the tasks at once.")
@click.option("--cpu", metavar="CPU", help="CPU cores for each task: 2, 0.5, 500m.")
@click.option("--memory", metavar="SIZE", help="Memory for each task: 512Mi, 4G.")
@click.option("--gpu", type=click.IntRange(min=0), help="GPUs for each task.")
@click.option(
    "--gpu-model", "gpu_models", multiple=True, metavar="MODEL", help="Which GPUs will do: A100, T4; of several, any."
)
@click.option("--pool", "pools", multiple=True, metavar="POOL", help="Run on nodes of this pool; of several, any.")
@click.option(
    "--constraint", "constraints", multiple=True, metavar="TEXT", help="What must hold of a node: 'kernel >= 5.15'."
)
@click.option(
    "--tolerate",
    "tolerations",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="A taint of nodes that doesn't keep it away.",
)
@click.option("--timeout", metavar="DURATION", help="Kill an attempt after so long: 10s, 1h30m.")
@click.option("--retries", type=click.IntRange(min=0), help="Try a failed task again, so many times.")
@click.option("--env", "env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable, or pass ours on.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Mark the job.")
@click.option("--priority", type=int, help="Larger starts first.")
@click.option("--priority-class", metavar="CLASS", help="low, medium, high, or one of your own: it gives the priority.")
@click.option("--queue", help="The queue to wait in.")
@click.option(
    "--not-before", metavar="WHEN", help="Start nothing before a time (2026-12-24T18:00:00Z), or for so long (2h)."
)
@click.option("--deadline", metavar="WHEN", help="Stop what has not ended by a time, or after so long.")
@namespace_option("Whose work it is; by default the context's namespace.")
@click.option("--tag", "tags", multiple=True, metavar="NAME", help="Caps may count by it.")
@click.option(
    "--semaphore", "semaphores", multiple=True, metavar="NAME[=UNITS]", help="Units that each running task holds."
)
@click.option("--workdir", metavar="DIR", help="Run there, on the node; by default a directory of the attempt's own.")
@click.option(
    "--input",
    "input_file",
    type=click.File("rb"),
    metavar="FILE",
    help="Hand this file (`-`: our stdin), of at most 256 KiB, to each task, as the file $HASCHED_INPUT.",
)
@click.option("--on-disconnect", type=click.Choice(["run_on", "stop"]), help="What a task does if its node is cut off.")
@click.option("--submission-id", metavar="ID", help="Submit at most once under this id, however often it is repeated.")
@click.option("--check-index", "if_index", type=click.IntRange(min=1), metavar="INDEX", help=_CHECK_HELP)
@click.option("--estimate", is_flag=True, help=_ESTIMATE_HELP)
@click.option("--wait", is_flag=True, help=_WAIT_HELP)
@json_option
@click.pass_obj
def run(
    settings: Settings,
    /,
    *,
    command: tuple[str, ...],
    env: tuple[str, ...],
    labels: tuple[str, ...],
    input_file: IO[bytes] | None,
    submission_id: str | None,
    if_index: int | None,
    estimate: bool,
    wait: bool,
    **options: Any,
) -> int:
    """Run a command as a job.

    Prints the job's number; with --wait it is as if the command ran here, except for stdin. That is not passed on:
    `--input -` reads it and hands it to each task as a file.
    """
    from hasched.cli.specs import read_input, read_pairs, read_units

    document: dict[str, Any] = {"command": list(command)}
    resources = {
        "cpu": options["cpu"],
        "memory": options["memory"],
        "gpus": options["gpu"],
        "gpu_model": list(options["gpu_models"]) or None,
    }
    placement = {
        "pool": list(options["pools"]),
        "constraints": list(options["constraints"]),
        "tolerations": list(options["tolerations"]),
    }
    optional = {
        "name": options["name"],
        "count": options["count"],
        "max_running": options["max_running"],
        "resources": {key: value for key, value in resources.items() if value is not None} or None,
        "placement": {key: value for key, value in placement.items() if value} or None,
        "timeout": options["timeout"],
        "retries": options["retries"],
        "env": read_pairs(env, "--env", from_environment=True) or None,
        "labels": read_pairs(labels, "--label") or None,
        "priority": options["priority"],
        "priority_class": options["priority_class"],
        "queue": options["queue"],
        "not_before": options["not_before"],
        "deadline": options["deadline"],
        "namespace": settings.namespace(options["namespace"]),
        "tags": list(options["tags"]) or None,
        "semaphores": read_units(options["semaphores"]) or None,
        "working_dir": options["workdir"],
        "input": read_input(input_file) if input_file is not None else None,
        "on_disconnect": options["on_disconnect"],
    }
    document |= {key: value for key, value in optional.items() if value is not None}
    if estimate:
        return _estimate(settings, [document])
    return _submit_one(settings, document, submission_id, if_index or 0, wait)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--submission-id", metavar="ID", help="Submit at most once under this id; several jobs get ID-1, ID-2, …")
@click.option("--check-index", "if_index", type=click.IntRange(min=1), metavar="INDEX", help=_CHECK_HELP)
@click.option(
    "--wait", is_flag=True, help="Stay until all have ended; exit with the code of the first that did not succeed."
)
@click.option("--estimate", is_flag=True, help=_ESTIMATE_HELP)
@namespace_option("Of jobs that name none; by default the context's namespace.")
@json_option
@click.pass_obj
def submit(
    settings: Settings,
    /,
    *,
    file: str,
    submission_id: str | None,
    if_index: int | None,
    estimate: bool,
    namespace: str | None,
    wait: bool,
) -> int:
    """Submit the jobs of a YAML file, one for each document (`---`); `-` reads stdin.

    Mistakes are named with their lines, and then none of the jobs is submitted. With --check-index each job is submitted
    only if nothing but the ones before it came between.
    """
    from hasched.cli.output import print_json
    from hasched.cli.specs import place_errors, read_job_file, within

    documents = read_job_file(file)
    base = submission_id or uuid.uuid4().hex
    chosen = settings.namespace(namespace)
    if estimate:
        return _estimate(settings, [within(chosen, document.value) for document in documents])
    submitted = []
    with settings.client() as client:
        for number, document in enumerate(documents, 1):
            identity = base if len(documents) == 1 else f"{base}-{number}"
            try:
                submitted.append(client.submit(within(chosen, document.value), identity, if_index=if_index or 0))
            except SpecInvalid as error:
                raise place_errors(file, document, error) from None
            except OutcomeUnknown as error:
                raise _with_id(error, base) from None
            if_index = if_index and submitted[-1].log_index
            if not settings.as_json:
                click.echo(f"job {submitted[-1].id}" + (" (submitted before)" if submitted[-1].duplicate else ""))
                _warn(submitted[-1])
        if wait:
            return _wait(settings, [job.id for job in submitted], None)
    if settings.as_json:
        print_json({"jobs": submitted})
    return Exit.OK


@click.command()
@click.argument("job_ids", nargs=-1, required=True, type=JobNumberType(), metavar="JOB...")
@click.option("--timeout", "timeout_ms", type=DurationType(), help="Give up after so long, with exit code 124.")
@json_option
@click.pass_obj
def wait(settings: Settings, job_ids: tuple[int, ...], timeout_ms: int | None) -> int:
    """Wait until jobs have ended; exit with the code of the first that did not succeed."""
    return _wait(settings, list(job_ids), timeout_ms)


def _estimate(settings: Settings, documents: list[dict[str, Any]]) -> int:
    from hasched.cli.output import print_json
    from hasched.cli.usage import say_estimate

    with settings.client() as client:
        estimates = [client.estimate(document) for document in documents]
    if settings.as_json:
        print_json({"estimates": estimates})
    for estimate in estimates if not settings.as_json else ():
        click.echo(say_estimate(estimate))
    return Exit.OK


def _submit_one(
    settings: Settings, document: dict[str, Any], submission_id: str | None, if_index: int, wait: bool
) -> int:
    submission_id = submission_id or uuid.uuid4().hex
    with settings.client() as client:
        try:
            submitted = client.submit(document, submission_id, if_index=if_index)
        except OutcomeUnknown as error:
            raise _with_id(error, submission_id) from None
        if not settings.as_json:
            _warn(submitted)
        if not wait:
            if settings.as_json:
                from hasched.cli.output import print_json

                print_json(submitted)
            else:
                click.echo(f"job {submitted.id}" + (" (submitted before)" if submitted.duplicate else ""))
            return Exit.OK
        if document.get("count", 1) != 1 or settings.as_json:
            return _wait(settings, [submitted.id], None, one=True)
        from hasched.cli.follow import conclude, follow_task

        try:
            job = follow_task(settings, client, submitted.id, f"{submitted.log_index - 1}.0")
        except KeyboardInterrupt:
            return _interrupted([submitted.id])
        return conclude(settings, client, job, as_here=True)


def _warn(submitted: Submitted) -> None:
    for warning in submitted.warnings:
        click.echo(f"hasched: job {submitted.id}: {warning}", err=True)


def _wait(settings: Settings, job_ids: list[int], timeout_ms: int | None, *, one: bool = False) -> int:
    """The exit code of the first that did not succeed. `one`: who asked knows of a single job, and in JSON gets just that."""
    from hasched.cli.follow import conclude, wait_for_jobs
    from hasched.cli.output import counts, print_json

    with settings.client() as client:
        try:
            jobs = wait_for_jobs(settings, client, job_ids, timeout_ms)
        except KeyboardInterrupt:
            return _interrupted(job_ids)
        if settings.as_json:
            print_json(jobs[0] if one else {"jobs": jobs})
        else:
            for job in jobs:
                click.echo(f"job {job.id} {job.state}: {counts(job.tasks)}")
        return next((code for job in jobs if (code := conclude(settings, client, job))), Exit.OK)


def _interrupted(job_ids: list[int]) -> int:
    names = " ".join(map(str, job_ids))
    click.echo(f"\ninterrupted; the work goes on: `hasched job wait {names}`, `hasched job cancel {names}`", err=True)
    return Exit.INTERRUPTED


def _with_id(error: OutcomeUnknown, submission_id: str) -> OutcomeUnknown:
    hint = f"run it again with --submission-id {submission_id}: it is done at most once"
    return OutcomeUnknown(error.cause, hint, submission_id=submission_id)
