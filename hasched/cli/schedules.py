"""`hasched schedule`: work that is due by itself, put from files, looked at, paused, and done after all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hasched.cli.schemas import schema_command
from hasched.cli.settings import Settings, json_option
from hasched.model.errors import FieldError, ScheduleInvalid

if TYPE_CHECKING:
    from hasched.model.schedule import ScheduleSpec
    from hasched.model.schedule_views import PreviewSlot, ScheduleView, SlotView
    from hasched.model.yaml_text import Document

_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@click.group()
def schedule() -> None:
    """Have work done by itself, and see when it was and will be."""


schedule.add_command(schema_command("schedule"))


@schedule.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option(
    "--if-index", type=click.IntRange(min=0), help="Only if its log index is still this; 0: only if it is new."
)
@json_option
@click.pass_obj
def apply(settings: Settings, files: tuple[str, ...], if_index: int | None) -> None:
    """Put the schedules of YAML files, one for each document (`---`); `-` reads stdin.

    A schedule is put whole. Mistakes are named with their lines, and then nothing is put; what only managers refuse (a template
    that isn't there) ends it, after those that are shown. What the linter finds is shown, and keeps nothing from being put.
    """
    from hasched.cli.output import print_json
    from hasched.cli.specs import placed

    wanted = [(path, name, document) for path in files for name, document, _ in read_schedule_file(path)]
    put = []
    with settings.client() as client:
        for path, name, document in wanted:
            with placed(path, document):
                view = client.put_schedule(name, document.value, if_index)
            put.append(view)
            if not settings.as_json:
                click.echo(f"schedule {view.name}: {view.when}, next {_next(view)}")
                for warning in view.warnings:
                    click.echo(f"  warning: {warning}")
    if settings.as_json:
        print_json({"schedules": put})


@schedule.command("list")
@click.option("--namespace", help="Only of this namespace.")
@json_option
@click.pass_obj
def list_schedules(settings: Settings, namespace: str | None) -> None:
    """List schedules by name."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        views = list(client.schedules(namespace))
    if settings.as_json:
        print_json({"schedules": views})
        return
    rows = (
        (
            view.name,
            _state(view),
            view.when,
            view.timezone,
            _next(view),
            _last(view),
            str(len(view.running) + len(view.executions) or ""),
            view.actor,
        )
        for view in views
    )
    print_table(("schedule", "state", "when", "zone", "next", "last", "running", "by"), rows, ("by", "zone"))


@schedule.command()
@click.argument("name", metavar="SCHEDULE")
@json_option
@click.pass_obj
def show(settings: Settings, name: str) -> None:
    """Show a schedule."""
    from hasched.cli.output import moment, print_fields, print_json

    with settings.client() as client:
        view = client.schedule(name)
    if settings.as_json:
        print_json(view)
        return
    pause, spec = view.pause, view.spec
    print_fields(
        [
            ("schedule", view.name),
            ("description", view.description),
            ("state", _state(view)),
            ("paused", f"by {pause.actor} since {moment(pause.since_ms)} {pause.reason}".strip() if pause else ""),
            ("alerts", ", ".join(view.alerts)),
            ("when", f"{view.when}, {view.timezone}"),
            ("next", _next(view)),
            ("last", _last(view)),
            ("last success", moment(view.succeeded_ms)),
            (
                "running",
                ", ".join(
                    [*(f"job {each}" for each in view.running), *(f"execution {each}" for each in view.executions)]
                ),
            ),
            ("waiting", f"{view.waiting} slots" if view.waiting else ""),
            ("slots", ", ".join(f"{number} {outcome}" for outcome, number in view.counts.items())),
            ("last refusal", view.refusal),
            ("namespace", view.namespace),
            ("by", view.actor),
            ("changed", moment(view.changed_ms)),
            ("catch up", spec.catch_up.value if spec else ""),
            ("overlap", spec.overlap.value if spec else ""),
        ]
    )


@schedule.command()
@click.argument("name", metavar="SCHEDULE")
@click.option("--limit", type=click.IntRange(1, 400), default=20, show_default=True, help="So many of the latest.")
@json_option
@click.pass_obj
def slots(settings: Settings, name: str, limit: int) -> None:
    """Show what became of the latest slots, and which are to come."""
    from hasched.cli.output import clock, print_json, print_table

    with settings.client() as client:
        page = client.slots(name, limit)
    if settings.as_json:
        print_json(page)
        return
    shown = [*reversed(page.planned[:5]), *page.slots]
    print_table(
        ("slot", "count", "outcome", "settled", "job", "state"),
        (
            (
                each.local,
                _span(each),
                each.outcome,
                clock(each.settled_ms),
                _made(each),
                each.job_state or each.execution_state,
            )
            for each in shown
        ),
    )


@schedule.command()
@click.argument("name", metavar="SCHEDULE")
@click.option("--reason", default="", help="Shown with the schedule.")
@json_option
@click.pass_obj
def pause(settings: Settings, name: str, reason: str) -> None:
    """Skip its slots until it is resumed. Each is told by `hasched schedule slots`."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = client.pause_schedule(name, reason)
    if settings.as_json:
        print_json(view)
    else:
        click.echo(f"schedule {name} is paused")


@schedule.command()
@click.argument("name", metavar="SCHEDULE")
@json_option
@click.pass_obj
def resume(settings: Settings, name: str) -> None:
    """Fire its slots again, from the next on."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = client.resume_schedule(name)
    if settings.as_json:
        print_json(view)
    else:
        click.echo(f"schedule {name} is active, next {_next(view)}")


@schedule.command()
@click.argument("name", metavar="[SCHEDULE]", required=False)
@click.option("-f", "--file", "path", type=_FILE, help="The schedules of a file instead; no cluster is needed.")
@click.option("-n", "--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="So many slots.")
@click.option(
    "--after", metavar="TIME", help="Slots later than this, such as 2026-12-24T18:00:00Z; by default than now."
)
@json_option
@click.pass_obj
def preview(settings: Settings, name: str | None, path: str | None, count: int, after: str | None) -> None:
    """Show the next slots of a schedule, or of those in a file."""
    from hasched.cli.output import print_json
    from hasched.model.schedule_views import Preview

    if (name is None) == (path is None):
        raise click.UsageError("name a schedule, or a file with -f")
    after_ms = _read_time(after) if after else None
    if name is not None:
        with settings.client() as client:
            found = {name: client.preview_schedule(name, count, after_ms)}
    else:
        from hasched.timetable.lint import lint
        from hasched.timetable.preview import preview as work_out
        from hasched.timetable.zones import data_version

        now_ms = time.time_ns() // 1_000_000
        found = {
            each: Preview(
                slots=work_out(each, spec, now_ms, after_ms or now_ms, count),
                warnings=lint(spec, now_ms),
                zone_data=data_version(),
            )
            for each, _, spec in read_schedule_file(path or "-")
        }
    if settings.as_json:
        print_json(next(iter(found.values())) if name is not None else {"schedules": found})
        return
    for each, shown in found.items():
        if len(found) > 1:
            click.echo(f"{each}:")
        _print_preview(shown.slots, shown.warnings)


def _print_preview(slots: Sequence[PreviewSlot], warnings: Sequence[str]) -> None:
    from hasched.cli.output import print_table

    rows = (
        (
            each.local,
            f"+{(each.fire_ms - each.slot_ms) / 1000:g} s" if each.fire_ms > each.slot_ms else "",
            each.skipped,
        )
        for each in slots
    )
    print_table(("slot", "jitter", "skipped"), rows)
    for warning in warnings:
        click.echo(f"warning: {warning}")


@schedule.command()
@click.argument("name", metavar="SCHEDULE")
@click.option("--from", "start", required=True, metavar="TIME", help="The first slot, such as 2026-12-24T00:00:00Z.")
@click.option("--until", "end", required=True, metavar="TIME", help="No slot then or later.")
@click.option("--again", is_flag=True, help="Also slots that were fired already.")
@click.option("--dry-run", is_flag=True, help="Only show which slots would be fired.")
@json_option
@click.pass_obj
def backfill(settings: Settings, *, name: str, start: str, end: str, again: bool, dry_run: bool) -> None:
    """Fire slots of the past that were not fired, one after the other unless runs may overlap."""
    from hasched.cli.output import print_json
    from hasched.model.words import counted

    with settings.client() as client:
        view = client.backfill_schedule(name, _read_time(start), _read_time(end), again=again, dry_run=dry_run)
    if settings.as_json:
        print_json(view)
        return
    verb = "would be" if dry_run else "will be"
    if not view.slots:
        click.echo(
            "no slot is to be fired: none was due in this range, or all were fired already (`--again` fires those too)"
        )
        return
    click.echo(f"{counted(len(view.slots), 'slot')} {verb} fired:")
    for each in view.slots:
        click.echo(f"  {each.local}" + (f" ({each.skipped})" if each.skipped else ""))


@schedule.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Exit with 65 if there is a warning.")
@json_option
@click.pass_obj
def lint(settings: Settings, files: tuple[str, ...], strict: bool) -> int:
    """Check the schedules of YAML files, and warn of what may not be meant. No cluster is needed."""
    from hasched.cli.exits import Exit
    from hasched.cli.output import print_json
    from hasched.model.words import counted
    from hasched.timetable.lint import lint as find_warnings

    now_ms = time.time_ns() // 1_000_000
    found = [(name, find_warnings(spec, now_ms)) for path in files for name, _, spec in read_schedule_file(path)]
    if settings.as_json:
        print_json({"schedules": [{"name": name, "warnings": warnings} for name, warnings in found]})
    else:
        for name, warnings in found:
            click.echo(f"{name}: {counted(len(warnings), 'warning') if warnings else 'good'}")
            for warning in warnings:
                click.echo(f"  {warning}")
    return Exit.BAD_INPUT if strict and any(warnings for _, warnings in found) else Exit.OK


@schedule.command()
@click.argument("name", metavar="SCHEDULE")
@json_option
@click.pass_obj
def delete(settings: Settings, name: str) -> None:
    """Delete a schedule and the ledger of its slots. Its jobs go on."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        client.delete_schedule(name)
    if settings.as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"schedule {name} deleted")


@schedule.command()
@click.argument("name", metavar="[SCHEDULE]", required=False)
@json_option
@click.pass_obj
def calendar(settings: Settings, name: str | None) -> None:
    """Print the slots to come of a schedule, or of all, as iCalendar. --json gives one object with the text."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        text = client.schedule_calendar(name)
    if settings.as_json:
        print_json({"calendar": text})
    else:
        click.echo(text, nl=False)


def read_schedule_file(path: str) -> list[tuple[str, Document, ScheduleSpec]]:
    """Name, document and content of each schedule of a file. Raises FileInvalid with all that is wrong."""
    from hasched.cli.specs import FileInvalid, place_errors, read_document_file
    from hasched.timetable.text import parse_schedule

    documents = read_document_file(path)
    if not documents:
        raise FileInvalid(path, [FieldError("", "there is no schedule in it", line=1)], ScheduleInvalid.code)
    found, errors = [], []
    for document in documents:
        try:
            name, spec = parse_schedule(document.value)
            found.append((name, document, spec))
        except ScheduleInvalid as error:
            errors += place_errors(path, document, error).errors
    if errors:
        raise FileInvalid(path, errors, ScheduleInvalid.code)
    return found


def _read_time(text: str) -> int:
    from hasched.model.times import parse_time_ms

    try:
        return parse_time_ms(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _state(view: ScheduleView) -> str:
    return ", ".join([view.state, *view.alerts])


def _next(view: ScheduleView) -> str:
    return view.next_local or "never"


def _last(view: ScheduleView) -> str:
    last = view.last
    return "" if last is None else f"{last.outcome} {last.local}"


def _made(slot: SlotView) -> str:
    """The job or the execution of a slot."""
    return f"execution {slot.execution_id}" if slot.execution_id else str(slot.job_id or "")


def _span(slot: SlotView) -> str:
    return str(slot.count) if slot.count > 1 else ""
