"""`hasched completion` and `hasched version`."""

from __future__ import annotations

import click

import hasched
from hasched.cli.settings import Settings, json_option

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_obj
def completion(settings: Settings, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: hasched completion bash > ~/.local/share/bash-completion/completions/hasched
    """
    from click.shell_completion import get_completion_class

    from hasched.cli.main import cli
    from hasched.cli.output import print_json

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    source = kind(cli, {}, "hasched", "_HASCHED_COMPLETE").source()
    if settings.as_json:
        print_json({"shell": shell, "script": source})
    else:
        click.echo(source)


@click.command()
@json_option
@click.pass_obj
def version(settings: Settings) -> None:
    """Print the version."""
    import platform

    from hasched.cli.output import print_json

    if settings.as_json:
        print_json({"version": hasched.__version__, "python": platform.python_version()})
    else:
        click.echo(f"hasched {hasched.__version__} (Python {platform.python_version()})")
