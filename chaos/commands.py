"""`hasched chaos`: break a cluster on purpose, and prove that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hasched.cli.exits import Exit
from hasched.cli.settings import Settings, json_option

Function = TypeVar("Function", bound=Callable[..., Any])

LONGEST_MINUTES = 24 * 60

files_option = click.option(
    "--with",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A Python file with nemeses, workloads or drills of your own. It is run as it is loaded.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    help="What the schedule is drawn from. [default: a random one, which is told]",
)
hasched_option = click.option(
    "--hasched",
    "command",
    metavar="COMMAND",
    help="Test the build that this command starts, as '/opt/next/bin/hasched'. [default: this one]",
)
output_option = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("chaos-reports"),
    show_default=True,
    help="The directory for the reports.",
)


def cluster_options(function: Function) -> Function:
    """Which cluster is hit: one of the harness's own, or one that runs."""
    for option in reversed(
        (
            click.option("--managers", type=click.Choice(["3", "5"]), help="Of a cluster of our own. [default: 3]"),
            click.option("--agents", type=click.IntRange(1, 32), help="Of a cluster of our own. [default: 2]"),
            click.option(
                "--attach", is_flag=True, help="Hit the running cluster of the context, with its own managers."
            ),
            click.option(
                "--cluster",
                "typed",
                metavar="NAME",
                help="With --attach: the cluster's name, typed as consent where it isn't marked as a test cluster.",
            ),
        )
    ):
        function = option(function)
    return function


def choice_options(function: Function) -> Function:
    """What it is hit with."""
    for option in reversed(
        (
            click.option(
                "--minutes",
                type=click.FloatRange(0.05, LONGEST_MINUTES),
                default=2.0,
                show_default=True,
                help="How long faults come.",
            ),
            click.option(
                "--nemesis",
                "wanted",
                multiple=True,
                metavar="NAME",
                help="Only this nemesis or family; may be given several times. [default: all]",
            ),
            click.option("--without", "unwanted", multiple=True, metavar="NAME", help="Not this nemesis or family."),
            click.option("--workload", "workloads", multiple=True, metavar="NAME", help="Only this workload."),
        )
    ):
        function = option(function)
    return function


@click.group()
def chaos() -> None:
    """Break a cluster on purpose, and prove that nothing is lost.

    Without --attach, commands make a cluster of their own on this machine: real daemons, each in a network namespace of
    its own where we are root. With it they hit the running cluster of the context. Whatever was done is undone at its
    deadline, even if this command is killed; `hasched chaos heal` undoes what is left.
    """


@chaos.command("list")
@files_option
@json_option
@click.pass_obj
def list_all(settings: Settings, files: tuple[Path, ...]) -> None:
    """List the nemeses, the workloads and the drills."""
    from chaos.listing import print_registry
    from chaos.registry import Registry

    print_registry(Registry(files), as_json=settings.as_json)


@chaos.command()
@choice_options
@cluster_options
@seed_option
@files_option
@json_option
@click.pass_obj
def plan(settings: Settings, /, **options: Any) -> None:
    """Show what `run` would do with the same options: nothing is started, nothing is hit."""
    from chaos.actions import plan_for
    from chaos.listing import print_plan

    wish = _wish(settings, options)
    print_plan(wish.seed, *plan_for(wish), as_json=settings.as_json)


@chaos.command()
@choice_options
@cluster_options
@seed_option
@files_option
@hasched_option
@output_option
@click.option("--dry-run", is_flag=True, help="As `hasched chaos plan`.")
@json_option
@click.pass_context
def run(ctx: click.Context, /, *, dry_run: bool, output: Path, **options: Any) -> int:
    """Work, break things, heal, judge. Exit code 1 if a promise was broken, or could not be decided."""
    if dry_run:
        options.pop("command")
        ctx.invoke(plan, **options)
        return Exit.OK
    from chaos.actions import run_for

    settings = ctx.find_object(Settings)
    assert settings is not None
    return run_for(_wish(settings, options), output, as_json=settings.as_json)


@chaos.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every drill.")
@click.option("--attach", is_flag=True, help="On the running cluster of the context.")
@click.option("--cluster", "typed", metavar="NAME", help="With --attach: the cluster's name, typed as consent.")
@seed_option
@files_option
@hasched_option
@output_option
@json_option
@click.pass_obj
def drill(settings: Settings, /, *, names: tuple[str, ...], everything: bool, output: Path, **options: Any) -> int:
    """Play failures that others had in production, each on a cluster of its own. Exit code 1 if one fails."""
    from chaos.actions import drill_for

    if everything == bool(names):
        raise click.UsageError("name the drills to play, or give --all; see `hasched chaos list`")
    return drill_for(_wish(settings, options), names, output, as_json=settings.as_json)


@chaos.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write the page anew, to this file.")
@json_option
@click.pass_obj
def report(settings: Settings, path: Path, page: Path | None) -> int:
    """Show the report in PATH (the JSON file of a run) again. Exit codes as of the run."""
    from chaos.actions import show_report

    return show_report(path, page, as_json=settings.as_json)


@chaos.command()
@click.option("--all", "everything", is_flag=True, help="End runs that are under way, too.")
@click.option("--dry-run", is_flag=True, help="Say what would be undone.")
@json_option
@click.pass_obj
def heal(settings: Settings, *, everything: bool, dry_run: bool) -> int:
    """Undo what runs that died have left: frozen processes, cuts, namespaces, mounts, files. Exit code 75 if some is left."""
    from chaos.listing import print_healed
    from chaos.safety.healing import heal as heal_now

    healed = heal_now(everything, dry_run)
    print_healed(healed, dry_run=dry_run, as_json=settings.as_json)
    return Exit.TEMPORARY if healed.failed else Exit.OK


def _wish(settings: Settings, options: dict[str, Any]) -> Any:
    from chaos.actions import wish_from

    return wish_from(settings.context_name, options)
