"""`hasched events`: what happens, as it happens."""

from __future__ import annotations

from itertools import islice

import click

from hasched.cli.exits import Exit
from hasched.cli.settings import Settings, json_option
from hasched.model.units import MAX_INTEGER


@click.command()
@click.option("--job", type=click.IntRange(1, MAX_INTEGER), metavar="JOB", help="Only of this job.")
@click.option("--execution", type=click.IntRange(1, MAX_INTEGER), metavar="ID", help="Only of this execution.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only of this type: JobEnded, ExecutionTaskEnded.")
@click.option(
    "--after", metavar="EVENT", help="Begin behind this event, if it is still held; by default with the next."
)
@click.option("--held", is_flag=True, help="Begin with the first event that is still held.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many.")
@json_option
@click.pass_obj
def events(
    settings: Settings,
    /,
    *,
    job: int | None,
    execution: int | None,
    types: tuple[str, ...],
    after: str | None,
    held: bool,
    limit: int | None,
) -> int:
    """Follow what happens, without gaps across fail-overs, until Ctrl-C. --json prints one object a line."""
    import msgspec

    from hasched.cli.output import moment

    if job is not None and execution is not None:
        raise click.UsageError("an event is of a job or of an execution: give one of --job and --execution")
    if held and after is not None:
        raise click.UsageError("give one of --after and --held")
    with settings.client() as client:
        found = client.events("held" if held else after, job, types, execution=execution)
        try:
            for event in islice(found, limit):
                if settings.as_json:
                    click.echo(msgspec.json.encode(event))
                    continue
                about = f"job {event.job_id}  " if event.job_id else ""
                said = "  ".join(
                    f"{key}={_short(value)}" for key, value in event.data.items() if value not in ("", None)
                )
                click.echo(f"{event.id}  {moment(event.time_ms)}  {event.type}  {about}{said}".rstrip())
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
    return Exit.OK


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
