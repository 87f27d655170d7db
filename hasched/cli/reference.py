"""docs/cli.md, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from hasched.cli.codes import CODES
from hasched.cli.exits import MEANINGS
from hasched.cli.extensions import own_extensions
from hasched.cli.main import COMMANDS, cli

_INTRODUCTION = """\
# Command line

<!-- Made by scripts/reference from the commands themselves; change those. -->

`hasched` talks to the cluster of the current context (`hasched context list`). Every command that prints something takes
`--json`, and then prints one JSON document; errors are JSON on stderr too. On a terminal tables have colours; in a pipe
they are plain columns.

These variables stand in for a context: `HASCHED_CONTEXT` names one, `HASCHED_MANAGERS`, `HASCHED_CA` and `HASCHED_TOKEN`
replace its parts, `HASCHED_CONFIG_DIR` is where contexts are kept (`~/.config/hasched`).
"""


def cli_reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([_INTRODUCTION, *_exit_codes(), *_options(cli, "hasched"), *_commands()]).rstrip() + "\n"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "`job run --wait`, `job submit --wait` and `job wait` exit with the job's own code, and with 128 + n if signal n"
    yield "ended its command; for an array, with that of the first task that did not succeed. Otherwise:\n"
    yield "| code | means |\n| --- | --- |"
    for code, meaning in MEANINGS.items():
        yield f"| {code.value} | {meaning} |"
    yield ""
    yield "With `--json` an error is one object on stderr: `code`, `cause`, `hint` and, for a document, `errors` with each place."
    yield "The codes are those of the managers ([api.md](api.md#codes)), and these:\n"
    yield "| code | means |\n| --- | --- |"
    for name, meaning in CODES.items():
        yield f"| `{name}` | {meaning} |"
    yield ""


def _commands() -> Iterator[str]:
    context = click.Context(cli, info_name="hasched")
    for name in sorted([*COMMANDS, *own_extensions(COMMANDS)]):
        command = cli.get_command(context, name)
        assert command is not None, "these are the names of what exists"
        yield from _section(command, f"hasched {name}", context)


def _section(command: click.Command, path: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=path.rsplit(" ", 1)[1], parent=parent)
    if isinstance(command, click.Group):
        for name in command.commands:
            yield from _section(command.commands[name], f"{path} {name}", context)
        return
    yield f"## {path}\n"
    yield f"    {path} {' '.join(command.collect_usage_pieces(context))}\n"
    yield (command.help or "").replace("\b", "").strip() + "\n"
    yield from _options(command, path)


def _options(command: click.Command, path: str) -> Iterator[str]:
    if command is cli:
        yield "## Global options\n"
        yield "Before the command: `hasched --context prod job list`.\n"
    context = click.Context(command, info_name=path)
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [record for record in records if record is not None and record[1]]
    if rows:
        yield "| option | |\n| --- | --- |"
        for option, text in rows:
            yield f"| `{_cell(option)}` | {_cell(text)} |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
