"""`hasched context`: which cluster commands talk to, and as whom."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from hasched.cli.settings import Settings, json_option

MAX_TOKEN_FILE_BYTES = 64 * 1024


@click.group()
def context() -> None:
    """Choose the cluster that commands talk to."""


@context.command("list")
@json_option
@click.pass_obj
def list_contexts(settings: Settings) -> None:
    """List the known clusters; a star marks the current one."""
    from hasched.cli.output import print_json, print_table
    from hasched.client.context import load_contexts

    known = load_contexts()
    if settings.as_json:
        listed = [{"name": name, "managers": each.managers} for name, each in known.contexts.items()]
        print_json({"current": known.current, "contexts": listed})
        return
    print_table(
        ("", "name", "managers"),
        (
            ("*" if name == known.current else "", name, " ".join(each.managers))
            for name, each in sorted(known.contexts.items())
        ),
    )


@context.command()
@click.argument("name")
@json_option
@click.pass_obj
def use(settings: Settings, name: str) -> None:
    """Make NAME the current cluster."""
    from hasched.cli.output import print_json
    from hasched.client.context import use_context

    use_context(name)
    if settings.as_json:
        print_json({"current": name})
    else:
        click.echo(f"{name} is the current context now")


@context.command()
@click.argument("name", required=False)
@json_option
@click.pass_obj
def show(settings: Settings, name: str | None) -> None:
    """Show what commands use to reach a cluster, overrides included. The token itself is not printed."""
    from hasched.cli.output import print_fields, print_json
    from hasched.client.context import load_context

    chosen = load_context(name or settings.context_name)
    shown = {"managers": chosen.managers, "ca": chosen.ca, "token": bool(chosen.token), "namespace": chosen.namespace}
    if settings.as_json:
        print_json(shown)
    else:
        token = "set" if chosen.token else "none"
        print_fields(
            [
                ("managers", " ".join(chosen.managers)),
                ("ca", chosen.ca),
                ("token", token),
                ("namespace", chosen.namespace),
            ]
        )


@context.command()
@click.argument("name")
@click.option(
    "--manager", "managers", multiple=True, required=True, metavar="URL", help="A manager: https://HOST:7411."
)
@click.option("--ca", required=True, type=click.Path(exists=True, dir_okay=False), help="The cluster's CA certificate.")
@click.option("-n", "--namespace", default="", help="The namespace of jobs that name none.")
@click.option("--token-file", required=True, type=click.File("rb"), help="A file with your token; `-` reads stdin.")
@json_option
@click.pass_obj
def add(
    settings: Settings, /, *, name: str, managers: tuple[str, ...], ca: str, token_file: BinaryIO, namespace: str
) -> None:
    """Add or replace the cluster NAME, and make it the current one. The token is kept in a file that only you can read."""
    from hasched.cli.output import print_json
    from hasched.client.context import Context, check_authority, save_context
    from hasched.model.errors import BadRequest

    token = token_file.read(MAX_TOKEN_FILE_BYTES).decode(errors="replace").strip()
    if not token:
        raise BadRequest(f"{token_file.name} holds no token", "`hasched token create NAME` prints one")
    check_authority(Path(ca))
    save_context(name, Context(list(managers), str(Path(ca).absolute()), token, namespace), current=True)
    if settings.as_json:
        print_json({"current": name})
    else:
        click.echo(f"{name} is the current context now")


@context.command()
@click.argument("name")
@json_option
@click.pass_obj
def remove(settings: Settings, name: str) -> None:
    """Forget the cluster NAME and the token for it. If it was the current one, none is until you choose another."""
    from hasched.cli.output import print_json
    from hasched.client.context import remove_context

    current = remove_context(name)
    if settings.as_json:
        print_json({"removed": name, "current": current})
    else:
        click.echo(
            f"{name} removed" + ("" if current else "; no context is current, choose one with `hasched context use`")
        )
