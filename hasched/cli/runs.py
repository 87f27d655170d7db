"""`hasched job run`, `submit` and `wait`: handing work in, and seeing it through."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hasched.cli.exits import Exit
from hasched.cli.job_options import document_of, job_options
from hasched.cli.settings import DurationType, JobNumberType, Settings, json_option
from hasched.model.errors import OutcomeUnknown, SpecInvalid

if TYPE_CHECKING:
    from hasched.model.views import Submitted

_CHECK_HELP = "Submit only while the plan that printed this check index still holds."
_ESTIMATE_HELP = "Only say what it would cost; nothing is submitted."
_WAIT_HELP = "Stay until it ends, show a single task's output as it comes, and exit with the job's own code."


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]...")
@job_options
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
    document = {"command": list(command), **document_of(options)}
    if (namespace := settings.namespace(options["namespace"])) is not None:
        document["namespace"] = namespace
    if estimate:
        return _estimate(settings, [document])
    return _submit_one(settings, document, submission_id, if_index or 0, wait)


class _SubmitCommand(click.Command):
    """What stands behind a script is the script's, as in Slurm; behind a job file come options of ours still."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        context = click.Context(
            self,
            info_name=ctx.info_name,
            allow_interspersed_args=False,
            resilient_parsing=True,
            help_option_names=ctx.help_option_names,
        )
        try:
            found, _, _ = self.make_parser(context).parse_args(list(args))
        except click.UsageError:
            return super().parse_args(ctx, args)  # and it says so
        file, given = found.get("file"), found.get("arguments")
        if isinstance(file, str) and _begins_as_script(file):
            own = list(given) if isinstance(given, (list, tuple)) else []
            _warn_of_mistaken(own, {name for parameter in self.params for name in parameter.opts})
            before = args[: len(args) - len(own) - 1]
            before = before[:-1] if before[-1:] == ["--"] else before
            args = [*before, "--", file, *(own[1:] if own[:1] == ["--"] else own)]
        return super().parse_args(ctx, args)


def _warn_of_mistaken(arguments: list[str], ours: set[str]) -> None:
    """`job submit train.sh --wait` may be a slip, where `--` isn't written between."""
    if arguments[:1] != ["--"] and (taken := [word for word in arguments if word.partition("=")[0] in ours]):
        click.echo(f"hasched: the script gets {' '.join(taken)}; options of ours go before it", err=True)


def _begins_as_script(path: str) -> bool:
    """Of stdin it isn't known before it is read."""
    try:
        with open(path, "rb") as file:
            return path != "-" and file.read(2) == b"#!"
    except OSError:
        return False  # which the argument's own type explains


@click.command(cls=_SubmitCommand)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@job_options
@click.option("--submission-id", metavar="ID", help="Submit at most once under this id; several jobs get ID-1, ID-2, …")
@click.option("--check-index", "if_index", type=click.IntRange(min=1), metavar="INDEX", help=_CHECK_HELP)
@click.option(
    "--wait", is_flag=True, help="Stay until all have ended; exit with the code of the first that did not succeed."
)
@click.option("--estimate", is_flag=True, help=_ESTIMATE_HELP)
@json_option
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    *,
    file: str,
    arguments: tuple[str, ...],
    submission_id: str | None,
    if_index: int | None,
    estimate: bool,
    wait: bool,
    **options: Any,
) -> int:
    """Submit the jobs of a YAML file, one for each document (`---`), or a script; `-` reads stdin.

    A script begins with `#!`. It travels with the job, takes options from its lines `#HASCHED --gpus=2` before its first
    command, and from the command line, which wins; what stands behind the script are its arguments. A YAML file says
    all itself: of the options that say what a job is, only -n and --dependency go with it, for jobs that have none.

    Mistakes are named with their lines, and then none of the jobs is submitted. With --check-index each job is submitted
    only if nothing but the ones before it came between.
    """
    from hasched.cli.output import print_json
    from hasched.cli.specs import place_errors, read_job_file, within

    settings = ctx.ensure_object(Settings)
    given = {
        name: value for name, value in options.items() if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    documents = read_job_file(file, arguments, given)
    base = submission_id or uuid.uuid4().hex
    chosen = settings.namespace(options["namespace"])
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
