"""`hasched queue` and `hasched quota`: short ways to the policies that people look at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hasched.cli.policies import author, change_policy, show_policy
from hasched.cli.settings import Settings, json_option
from hasched.model.policy import QueueState

if TYPE_CHECKING:
    from hasched.model.views import PolicyView


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
    """List quotas."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.policies("quota")
    if settings.as_json:
        print_json({"quotas": page.policies})
        return
    print_table(("quota", "of", "parent", "limits", "by", "changed"), map(_quota_row, page.policies), ("changed", "by"))


def _quota_row(view: PolicyView) -> tuple[str, ...]:
    given = view.document
    who = "each user" if given.get("each_user") else given.get("user", "")
    of = " of ".join(filter(None, (who, given.get("namespace", "")))) or "all"
    limits = given.get("limits", {})
    shown = ", ".join(f"{key}: {value}" for key, value in limits.items())
    return view.name, of, given.get("parent", ""), shown, *author(view)


@quota.command("show")
@click.argument("name", metavar="QUOTA")
@json_option
@click.pass_obj
def show_quota(settings: Settings, name: str) -> None:
    """Show a quota, as a document that `hasched policy apply` takes."""
    show_policy(settings, "quota", name)
