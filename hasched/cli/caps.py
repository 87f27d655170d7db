"""`hasched cap`: caps and semaphores, with what of each is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hasched.cli.policies import author
from hasched.cli.settings import Settings, json_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hasched.model.views import LimitView, PolicyView


@click.group()
def cap() -> None:
    """Look at caps and semaphores."""


@cap.command("list")
@json_option
@click.pass_obj
def list_caps(settings: Settings) -> None:
    """List caps and semaphores, with what of each is taken: of one that counts each by itself, a line for each."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page, use = client.policies("cap"), client.limits("cap")
    if settings.as_json:
        print_json({"caps": page.policies, "limits": use.limits})
        return
    print_table(
        ("cap", "counts", "of", "used", "units", "available", "by", "changed"),
        (row for view in page.policies for row in cap_rows(view, use.limits)),
        ("changed", "by"),
        "there are no caps and no semaphores: `hasched policy apply` puts them",
    )


def cap_rows(view: PolicyView, limits: Sequence[LimitView]) -> Iterator[tuple[str, ...]]:
    """A row for each that is counted by itself; one for a cap of which nothing is taken."""
    given = view.document
    subject, namespace = given.get("subject", "semaphore"), given.get("namespace", "")
    counts = (
        "units" if subject == "semaphore" else f"{subject} {given['match']}" if "match" in given else f"each {subject}"
    )
    counts += f" in {namespace}" if namespace else ""
    of = [each for each in limits if each.name == view.name]
    for each in of:
        yield view.name, counts, each.of, str(each.used), str(each.limit), str(each.available), *author(view)
    if not of:
        units = str(given["units"])
        yield view.name, counts, "", "0", units, units, *author(view)
