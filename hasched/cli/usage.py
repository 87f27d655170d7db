"""`hasched usage`: what was used, by whom and when, and what it cost."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from hasched.cli.settings import Settings, json_option, namespace_option
from hasched.model.units import HOUR_MS

if TYPE_CHECKING:
    from hasched.model.views import EstimateView, UsageRow


@click.command()
@click.option(
    "--by",
    type=click.Choice(["account", "user", "namespace", "week", "job"]),
    default="account",
    show_default=True,
    help="What to sum up by; an account is a user in a namespace.",
)
@namespace_option("Only of this namespace; by default the context's, if it names one.")
@click.option("--user", help="Only of this user.")
@click.option("--week", metavar="DAY", help="Only of the week of this day: 2026-11-30.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="By job: at most so many.")
@json_option
@click.pass_obj
def usage(
    settings: Settings, /, *, by: str, namespace: str | None, user: str | None, week: str | None, limit: int
) -> None:
    """Show what was used, and what that cost.

    It is what attempts that have ended held: two cores for an hour are 2h of CPU, and so is a core for two. Memory and disk are
    in GiB. By job, the newest come first.
    """
    from hasched.cli.output import print_json, print_table

    wanted = settings.namespace(namespace)
    with settings.client() as client:
        page = client.usage(by, namespace=wanted, user=user, week=week, limit=limit if by == "job" else None)
    if settings.as_json:
        print_json(page)
        return
    names = [
        name for name in ("namespace", "user", "week", "job", "name") if any(_label(row, name) for row in page.usage)
    ]
    columns = (*names, "CPU", "memory", "GPU", "disk", "CPU used", "running", f"cost {page.currency}".rstrip())
    rows = ([*(_label(row, name) for name in names), *_amounts(row)] for row in page.usage)
    print_table(columns, itertools.chain(rows), ("disk", "running"), "nothing has been used")


def _label(row: UsageRow, name: str) -> str:
    value = row.job_id if name == "job" else getattr(row, name)
    return "" if value is None else str(value)


def _amounts(row: UsageRow) -> list[str]:
    held = (row.cpu_core_ms, row.memory_gib_ms, row.gpu_ms, row.disk_gib_ms, row.cpu_ms)
    running = str(row.running_tasks) if row.running_tasks else ""
    return [*(times(amount) for amount in held), running, money(row.cost_micro)]


def times(amount_ms: int) -> str:
    """An amount x ms, as a time of one of it: `350ms`, `12.3s`, `45.0m`, `1280.5h`; empty for nothing."""
    if amount_ms < 1000:
        return f"{amount_ms}ms" if amount_ms else ""
    unit, length = next((each for each in (("s", 1000), ("m", 60_000)) if amount_ms < 60 * each[1]), ("h", HOUR_MS))
    return f"{amount_ms / length:.1f}{unit}"


def money(micro: int) -> str:
    """Millionths as people read money: `12.30`, with more digits where there is less."""
    if not micro:
        return ""
    return f"{micro / 1_000_000:.2f}" if micro >= 100_000 else f"{micro / 1_000_000:.6f}".rstrip("0")


def say_estimate(view: EstimateView) -> str:
    """What a job would cost, in a sentence."""
    if not view.priced:
        return "there is no price: `hasched policy apply` puts one"

    def shown(micro: int) -> str:
        return f"{money(micro) or '0'} {view.currency}".rstrip()

    if view.cost_micro is None or view.most_micro is None:
        return f"{shown(view.hour_micro)} an hour; it has no timeout, so there is no upper bound"
    most = f", {shown(view.most_micro)} with all its retries" if view.most_micro != view.cost_micro else ""
    return f"at most {shown(view.cost_micro)}{most}"
