"""Scripts as jobs: `hasched job submit train.sh` takes the options of `hasched job run` from lines `#HASCHED --gpus=2` in it.

Such lines count before the first command, as in Slurm, and each is read by the parser of the command line itself. What the
command line says wins over them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hasched.cli.job_options import KEYED, document_of, job_options
from hasched.cli.specs import FileInvalid
from hasched.model.errors import FieldError
from hasched.model.ids import is_name
from hasched.model.spec import MAX_SPEC_BYTES
from hasched.model.yaml_text import Document

DIRECTIVE = "#HASCHED"
FOREIGN_DIRECTIVE = "#SBATCH"
_DIRECTIVE = re.compile(rf"{DIRECTIVE}(?:[ \t]+(.*))?")


@click.command(DIRECTIVE, add_help_option=False)
@job_options
def _directive(**options: Any) -> None:
    """A line of directives: the parser alone is of use."""


# A script that somebody else has written must not hand on files of whoever submits it.
_directive.params = [each for each in _directive.params if each.name != "input_file"]


def is_script(text: str) -> bool:
    """Whether a file is a script, and no YAML: it names what runs it."""
    return text.startswith("#!")


def read_script(
    path: str, text: str, arguments: tuple[str, ...] = (), options: Mapping[str, Any] | None = None
) -> Document:
    """The job of a script, called with these arguments; `options` are those of the command line.

    A place of the document that a directive has filled has its line. Raises FileInvalid with all that is wrong.
    """
    if len(text.encode()) > MAX_SPEC_BYTES:
        cause = f"the script is larger than {MAX_SPEC_BYTES} bytes"
        raise FileInvalid(path, [FieldError("", cause, "put data in files that tasks can reach", line=1)])
    errors: list[FieldError] = []
    merged: dict[str, Any] = {}
    places: dict[str, int] = {"": 1}
    for number, words in _directives(text.split("\n"), errors):
        try:
            given = _options_of(words)
            filled = document_of(given)
        except click.ClickException as error:
            errors.append(FieldError("", *_complaint(error, words), line=number))
            continue
        _add(merged, given)
        places |= dict.fromkeys(places_of(filled), number)
    if errors:
        raise FileInvalid(path, errors)
    _override(merged, options or {})
    name = Path(path).name
    document = {
        **({"name": name} if is_name(name) else {}),
        **document_of(merged),
        "script": text,
        **({"args": list(arguments)} if arguments else {}),
    }
    return Document(document, places)


def _directives(lines: list[str], errors: list[FieldError]) -> Iterator[tuple[int, list[str]]]:
    """The words of each directive, with its line; those that say nothing are said on stderr."""
    begun = ""  # the first command
    foreign = False
    for number, line in enumerate(lines, 1):
        if line.startswith(FOREIGN_DIRECTIVE) and not begun and not foreign:
            foreign = True
            hint = "`hasched import sbatch` makes a job file of them"
            click.echo(f"hasched: line {number}: {FOREIGN_DIRECTIVE} lines say nothing here; {hint}", err=True)
        match = _DIRECTIVE.fullmatch(line)
        if match is None:
            if not begun and line.strip() and not line.startswith("#"):
                begun = f"line {number}"
            continue
        if begun:
            click.echo(f"hasched: line {number}: {DIRECTIVE} behind the first command ({begun}) says nothing", err=True)
            continue
        try:
            yield number, shlex.split(match[1] or "", comments=True)
        except ValueError as error:
            errors.append(FieldError("", f"{error}", line=number))


def _options_of(words: list[str]) -> dict[str, Any]:
    """What a directive gives. Raises ClickException."""
    context = _directive.make_context(DIRECTIVE, list(words))
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _complaint(error: click.ClickException, words: list[str]) -> tuple[str, str]:
    """The cause and the hint of what click says of a directive."""
    from hasched.cli.main import words_of
    from hasched.cli.runs import submit

    if isinstance(error, click.NoSuchOption):
        known = {name for parameter in submit.params for name in parameter.opts}
        if error.option_name in known:
            return f"{error.option_name} is for the command line alone", ""
        meant = f"did you mean {error.possibilities[0]}?" if error.possibilities else ""
        return f"there is no option {error.option_name}", meant or "`hasched job submit --help` shows them"
    if isinstance(error, click.UsageError) and "unexpected extra argument" in error.message:
        return f"{' '.join(words)!r} is more than options", "a value with blanks goes in quotes"
    return words_of(error), ""


def _add(merged: dict[str, Any], given: Mapping[str, Any]) -> None:
    """A later directive wins; of options that may be repeated each adds its own."""
    for name, value in given.items():
        merged[name] = (*merged.get(name, ()), *value) if isinstance(value, tuple) else value


def _override(merged: dict[str, Any], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        merged[name] = (*merged.get(name, ()), *value) if name in KEYED else value


def places_of(value: Any, place: str = "") -> Iterator[str]:
    """Every place of a document, dotted."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places_of(each, f"{place}.{key}" if place else key)
