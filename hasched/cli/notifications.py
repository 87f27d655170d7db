"""`hasched notification`: who is told of what, what waits, and what was given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from hasched.cli.settings import DurationType, Settings, json_option
from hasched.model.errors import Conflict

if TYPE_CHECKING:
    from hasched.model.notification_views import DeliveryView, NotificationView

_STATES = ("waiting", "delivered", "failed")
_PAUSE_S = 0.1


@click.group()
def notification() -> None:
    """See who is told of what, and whether it arrives. `hasched policy apply` puts them."""


@notification.command("list")
@json_option
@click.pass_obj
def list_notifications(settings: Settings) -> None:
    """List notifications, with what waits for each and what became of the rest."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.notifications()
    if settings.as_json:
        print_json(page)
        return
    rows = (
        (
            view.name,
            view.to,
            ", ".join(view.namespaces) or "all",
            str(view.waiting),
            str(view.delivered),
            str(view.failed),
            str(view.dropped),
            view.error,
        )
        for view in page.notifications
    )
    print_table(
        ("notification", "to", "namespaces", "waiting", "delivered", "failed", "dropped", "last error"), rows, ()
    )


@notification.command()
@click.argument("name", metavar="NOTIFICATION")
@click.option("--state", "states", type=click.Choice(_STATES), multiple=True, help="Only deliveries in this state.")
@click.option("--limit", type=click.IntRange(0, 2500), default=20, show_default=True, help="So many of the latest.")
@json_option
@click.pass_obj
def show(settings: Settings, name: str, states: tuple[str, ...], limit: int) -> None:
    """Show a notification and its latest deliveries."""
    from hasched.cli.output import moment, print_fields, print_json, print_table

    with settings.client() as client:
        view = client.notification(name, states, limit)
    if settings.as_json:
        print_json(view)
        return
    print_fields(
        [
            ("notification", view.name),
            ("description", view.description),
            ("to", view.to),
            ("events", ", ".join(view.events) or "what jobs name it for"),
            ("namespaces", ", ".join(view.namespaces) or "all"),
            ("waiting", f"{view.waiting}, since {moment(view.oldest_ms)}" if view.waiting else "0"),
            ("delivered", str(view.delivered)),
            ("failed", str(view.failed)),
            ("dropped", str(view.dropped)),
        ]
    )
    if view.deliveries:
        click.echo()
        columns = ("delivery", "state", "event", "about", "queued", "attempts", "next", "error")
        print_table(columns, map(_row, view.deliveries), ())


def _row(delivery: DeliveryView) -> tuple[str, ...]:
    from hasched.cli.output import moment

    notice = delivery.notice
    number = notice.job_id or notice.execution_id
    about = f"{number} {notice.name}" if number else notice.name or notice.actor
    return (
        str(delivery.id),
        delivery.state,
        notice.topic,
        about,
        moment(delivery.queued_ms),
        str(delivery.attempts),
        moment(delivery.next_ms),
        delivery.error,
    )


@notification.command()
@click.argument("name", metavar="NOTIFICATION")
@click.argument("deliveries", nargs=-1, type=click.IntRange(min=1), metavar="[DELIVERY]...")
@json_option
@click.pass_obj
def retry(settings: Settings, name: str, deliveries: tuple[int, ...]) -> None:
    """Try deliveries again, now; without any, all that wait or have failed."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = client.retry_notification(name, deliveries)
    if settings.as_json:
        print_json(view)
    else:
        click.echo(f"notification {name}: {view.waiting} waiting")


@notification.command()
@click.argument("name", metavar="NOTIFICATION")
@click.option("--timeout", type=DurationType(), default="30s", show_default=True, help="How long to wait for it.")
@json_option
@click.pass_obj
def test(settings: Settings, name: str, timeout: int) -> None:
    """Send a notice that says only that somebody tries it, and wait until it has arrived or an attempt has failed."""
    from hasched.cli.output import print_json

    until_s = time.monotonic() + timeout / 1000
    with settings.client() as client:
        sent = max(client.test_notification(name).deliveries, key=lambda each: each.id)
        while (delivery := _find(client.notification(name, (), 2500), sent)).state == "waiting":
            if delivery.attempts or time.monotonic() > until_s:
                raise Conflict(
                    f"notification {name} has not arrived: {delivery.error or 'no attempt has ended yet'}",
                    "it is tried again by itself; `hasched notification show` says what comes of it",
                    code="not_delivered",
                )
            time.sleep(_PAUSE_S)
    if settings.as_json:
        print_json(delivery)
    elif delivery.state == "delivered":
        click.echo(f"notification {name} has arrived")
    else:
        raise Conflict(f"notification {name} was given up: {delivery.error}", code="not_delivered")


def _find(view: NotificationView, sent: DeliveryView) -> DeliveryView:
    """The delivery as it is now; one that is not kept any more has long been over."""
    return next((each for each in view.deliveries if each.id == sent.id), sent)
