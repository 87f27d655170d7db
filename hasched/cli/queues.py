"""`hasched queue` and `hasched quota`: short ways to the policies that people look at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hasched.cli.policies import author, change_policy, document_text, show_policy
from hasched.cli.settings import Settings, json_option
from hasched.model.policy import QueueState

if TYPE_CHECKING:
    from hasched.model.views import LimitView, PolicyView


@click.group()
def queue() -> None:
    """Look at queues, close and open them."""


@queue.command("list")
@json_option
@click.pass_obj
def list_queues(settings: Settings) -> None:
    """List queues."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.policies("queue")
    if settings.as_json:
        print_json({"queues": page.policies})
        return
    print_table(
        ("queue", "state", "priority", "weight", "max running", "by", "changed"), map(_queue_row, page.policies)
    )


def _queue_row(view: PolicyView) -> tuple[str, ...]:
    given = view.document
    state, cap = given.get("state", "open"), given.get("max_running", "")
    return view.name, str(state), str(given.get("priority", 0)), str(given.get("weight", 1)), str(cap), *author(view)


@queue.command("show")
@click.argument("name", metavar="QUEUE")
@json_option
@click.pass_obj
def show_queue(settings: Settings, name: str) -> None:
    """Show a queue, as a document that `hasched policy apply` takes."""
    show_policy(settings, "queue", name)


@queue.command("close")
@click.argument("name", metavar="QUEUE")
@json_option
@click.pass_obj
def close_queue(settings: Settings, name: str) -> None:
    """Take no more jobs into a queue; those that wait in it go on."""
    _set_state(settings, name, QueueState.CLOSED)


@queue.command("open")
@click.argument("name", metavar="QUEUE")
@json_option
@click.pass_obj
def open_queue(settings: Settings, name: str) -> None:
    """Take jobs into a queue again."""
    _set_state(settings, name, QueueState.OPEN)


def _set_state(settings: Settings, name: str, state: QueueState) -> None:
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = change_policy(client, "queue", name, state=state.value)
    if settings.as_json:
        print_json(view)
    else:
        click.echo(f"queue {name} is {state.value}")


@click.group()
def quota() -> None:
    """Look at quotas."""


@quota.command("list")
@json_option
@click.pass_obj
def list_quotas(settings: Settings) -> None:
    """List quotas, with what of each is used."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page, use = client.policies("quota"), client.limits("quota")
    if settings.as_json:
        print_json({"quotas": page.policies, "limits": use.limits})
        return
    rows = []
    for view in page.policies:
        of = [each for each in use.limits if each.name == view.name and not each.of]
        shown = [(each.amount, f"{amount_text(each, each.used)}/{amount_text(each, each.limit)}") for each in of]
        limits = ", ".join(f"{amount} {text}" for amount, text in shown) or _limits(view)
        rows.append((view.name, _whose(view), view.document.get("parent", ""), limits, *author(view)))
    print_table(
        ("quota", "of", "parent", "limits", "by", "changed"),
        rows,
        ("changed", "by"),
        "there are no quotas: `hasched policy apply` puts them",
    )


def _whose(view: PolicyView) -> str:
    given = view.document
    who = "each user" if given.get("each_user") else given.get("user", "")
    return " of ".join(filter(None, (who, given.get("namespace", "")))) or ("parts" if given.get("cohort") else "all")


def _limits(view: PolicyView) -> str:
    return ", ".join(f"{key} {value}" for key, value in view.document.get("limits", {}).items())


@quota.command("show")
@click.argument("name", metavar="QUOTA")
@json_option
@click.pass_obj
def show_quota(settings: Settings, name: str) -> None:
    """Show a quota, as a document that `hasched policy apply` takes, and what of it is used."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        view, use = client.policy("quota", name), client.limits("quota", name)
    if settings.as_json:
        print_json({"quota": view, "limits": use.limits})
        return
    click.echo(document_text(view), nl=False)
    if use.limits:
        click.echo()
        rows = (
            (each.of, each.amount, *(amount_text(each, number) for number in (each.used, each.limit, each.available)))
            for each in use.limits
        )
        of_users = any(each.of for each in use.limits)
        columns = ("user", "amount", "used", "limit", "available")
        print_table(columns[not of_users :], (row[not of_users :] for row in rows))


def amount_text(view: LimitView, number: int) -> str:
    """A number of what a limit counts, as its document has it."""
    from hasched.model.units import format_bytes, format_cpu

    match view.amount:
        case "cpu":
            return format_cpu(number)
        case "memory" | "disk":
            return format_bytes(number)
        case "gpu_hours_per_week":
            return f"{number / 3_600_000:.2f}".rstrip("0").rstrip(".")
        case _:
            return str(number)
