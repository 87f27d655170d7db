"""`hasched cron`: schedules out of a crontab."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

from hasched.cli.settings import Settings, json_option
from hasched.model.errors import Conflict

if TYPE_CHECKING:
    from hasched.client.sync import Client


@click.group()
def cron() -> None:
    """Make schedules of a crontab."""


@cron.command("import")
@click.argument("crontab", type=click.File(encoding="utf-8"), metavar="CRONTAB")
@click.option("--timezone", default="UTC", show_default=True, help="The zone that the crontab's machine was in.")
@click.option("--prefix", default="", help="What every name begins with.")
@click.option("--system", is_flag=True, help="Each line names a user before its command, as in /etc/crontab.")
@click.option("--notify", default="", metavar="NAME", help="The notification that is told when a run fails.")
@click.option("--apply", "put", is_flag=True, help="Put them at once, instead of printing a file for `schedule apply`.")
@click.option("--replace", is_flag=True, help="With --apply: put them in the place of schedules of these names.")
@json_option
@click.pass_obj
def import_crontab(
    settings: Settings,
    *,
    crontab: IO[str],
    timezone: str,
    prefix: str,
    system: bool,
    notify: str,
    put: bool,
    replace: bool,
) -> None:
    """Make a file of schedules of the output of `crontab -l`; `-` reads stdin.

    What can't be taken is said on stderr, line by line. Slots that nobody could fire are skipped, as cron does.
    """
    from hasched.cli.output import print_json
    from hasched.timetable.crontab import read_crontab
    from hasched.timetable.text import parse_schedule
    from hasched.timetable.zones import zone_names

    if timezone not in zone_names():
        raise click.BadParameter(f"there is no time zone {timezone!r}")
    found = read_crontab(crontab.read(), prefix=prefix, timezone=timezone, system=system, notify=notify)
    for document in found.documents:
        parse_schedule(document)
    for problem in found.problems:
        click.echo(problem, err=True)
    if put:
        with settings.client() as client:
            _put(client, found.documents, replace)
    if settings.as_json:
        print_json({"schedules": found.documents, "problems": found.problems})
    elif put:
        for document in found.documents:
            click.echo(f"schedule {document['name']}: cron {document['cron']}")
    else:
        from hasched.cli.importing import write_documents

        click.echo(write_documents(found.documents), nl=False)


def _put(client: Client, documents: list[dict[str, Any]], replace: bool) -> None:
    """All of them, or none where one has the name of a schedule that is there. Raises Conflict."""
    if not replace:
        names = dict.fromkeys(each.name for each in client.schedules())
        if taken := [each["name"] for each in documents if each["name"] in names]:
            raise Conflict(
                f"there are schedules called {', '.join(taken)} already",
                "--prefix gives these other names, --replace puts them in the place of those",
            )
    for each in documents:
        client.put_schedule(each["name"], each, None if replace else 0)
