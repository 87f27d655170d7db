"""Job documents from the command line and from files.

A file is judged here as the managers would, before anything is sent: a mistake in its third job leaves none submitted.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import click

from hasched.cli.job_options import document_of
from hasched.model.errors import ConfigInvalid, FieldError, SpecInvalid
from hasched.model.spec import MAX_INPUT_BYTES
from hasched.model.yaml_text import Document, read_documents

_TEMPLATE_HINT = "a job with parameters is a template: `hasched template put`, then `hasched job dispatch`"
_SAID_LATE = ("dependency", "on_broken_dependency")  # of jobs whose numbers nobody knows when a file is written


class FileInvalid(SpecInvalid):
    """A file of documents that can't be accepted; each error carries its line. `code` is that of what is wrong."""

    def __init__(self, source: str, errors: list[FieldError], code: str = SpecInvalid.code) -> None:
        errors = sorted(errors, key=lambda error: error.line)
        super().__init__(errors)
        self.extra["code"] = code
        source = "stdin" if source == "-" else source
        self.cause = "\n".join(f"{source}:{error.line}: {_sentence(error)}" for error in errors)
        self.extra["errors"] = [
            {"path": error.path, "line": error.line, "cause": error.cause, "hint": error.hint} for error in errors
        ]


def read_job_file(
    path: str, arguments: tuple[str, ...] = (), options: Mapping[str, Any] | None = None
) -> list[Document]:
    """The jobs of a YAML (or JSON) file, `-` for stdin; or that of a script, with its arguments and the options for it.

    Raises FileInvalid with all that is wrong, UsageError where arguments or options don't go with a YAML file.
    """
    from hasched.cli.scripts import DIRECTIVE, is_script, places_of, read_script
    from hasched.model.parse import parse_spec

    text = read_text(path)
    if is_script(text):
        documents = [read_script(path, text, arguments, options)]
    elif text.startswith(DIRECTIVE) or f"\n{DIRECTIVE}" in text:
        raise FileInvalid(path, [FieldError("", "a script begins with a line such as #!/bin/sh", line=1)])
    else:
        _refuse_options(path, arguments, options or {})
        documents = _parse_documents(path, text)
        known = {key: value for key, value in document_of(options or {}).items() if key in _SAID_LATE}
        for each in documents:
            if isinstance(each.value, dict):
                each.value.update({key: value for key, value in known.items() if key not in each.value})
    if not documents:
        raise FileInvalid(path, [FieldError("", "there is no job in it", line=1)])
    errors: list[FieldError] = []
    said = dict.fromkeys(places_of(document_of(options or {})))
    for document in documents:
        if not isinstance(document.value, dict):
            hint = "a script begins with a line such as #!/bin/sh" if isinstance(document.value, str) else ""
            errors.append(FieldError("", "a job is a mapping", hint, line=document.line_of("")))
            continue
        try:
            parse_spec(document.value)
        except SpecInvalid as error:
            if all(each.path in said for each in error.errors):
                raise  # of the command line, and of no line of the file
            for fault in error.errors:
                hint = fault.hint or (_TEMPLATE_HINT if fault.path == "parameters" else "")
                errors.append(FieldError(fault.path, fault.cause, hint, document.line_of(fault.path)))
    if errors:
        raise FileInvalid(path, errors)
    return documents


def read_document_file(path: str, *, fillable: bool = False) -> list[Document]:
    """The documents of a YAML (or JSON) file, `-` for stdin, whatever they are. Raises FileInvalid if it is no such file.

    `fillable`: `#{…}` means something in it.
    """
    return _parse_documents(path, read_text(path), fillable=fillable)


def read_text(path: str) -> str:
    """A file as text, `-` for stdin. Raises FileInvalid if it is none."""
    with click.open_file(path, encoding="utf-8") as file:
        try:
            text: str = file.read()
        except UnicodeDecodeError as error:
            raise FileInvalid(path, [FieldError("", f"not UTF-8: {error}", line=1)]) from None
    return text


def _refuse_options(path: str, arguments: tuple[str, ...], options: Mapping[str, Any]) -> None:
    """Raises UsageError for what only a script can take."""
    if arguments:
        raise click.UsageError(f"arguments are for scripts, which begin with #!, and {path} is none")
    if others := sorted(document_of(options).keys() - {"namespace", *_SAID_LATE}):
        raise click.UsageError(f"{path} is no script, which would begin with #!: write {', '.join(others)} into it")


def _parse_documents(path: str, text: str, *, fillable: bool = False) -> list[Document]:
    try:
        return read_documents(text, path, fillable=fillable)
    except ConfigInvalid as error:
        raise FileInvalid(path, error.errors) from None


def place_errors(path: str, document: Document, invalid: SpecInvalid) -> FileInvalid:
    """The verdict on a document of the file `path`, with the lines that it speaks of."""
    return FileInvalid(
        path,
        [FieldError(error.path, error.cause, error.hint, document.line_of(error.path)) for error in invalid.errors],
        invalid.code,
    )


@contextmanager
def placed(path: str, document: Document) -> Iterator[None]:
    """What the managers refuse of the document of the file `path` gets the lines that they speak of.

    Values of parameters don't stand in the file.
    """
    try:
        yield
    except SpecInvalid as error:
        if all(each.path.startswith("parameters.") for each in error.errors):
            raise
        raise place_errors(path, document, error) from None


def read_input(file: IO[bytes]) -> str | dict[str, str]:
    """An input payload as a document holds it: text where it is text, else base64."""
    data = file.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise click.BadParameter(
            f"the input is larger than {MAX_INPUT_BYTES} bytes; put it in a file that tasks can reach"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    return text if "\0" not in text else {"base64": base64.b64encode(data).decode()}


def read_pairs(texts: Iterable[str], option: str, from_environment: bool = False) -> dict[str, str]:
    """`K=V` options as a mapping; with `from_environment`, `K` alone takes our own value of K."""
    mapping: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or (not equals and not from_environment):
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
        if not equals:
            if key not in os.environ:
                raise click.BadParameter(f"{key} is not set in the environment", param_hint=option)
            value = os.environ[key]
        mapping[key] = value
    return mapping


def read_units(texts: Iterable[str], option: str) -> dict[str, int]:
    """`NAME=UNITS` options, or `NAME` for one unit, as a mapping."""
    units: dict[str, int] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not name or (equals and not (number.isascii() and number.isdigit())):
            raise click.BadParameter(f"{text!r} is not NAME or NAME=NUMBER", param_hint=option)
        units[name] = int(number or 1)
    return units


def read_warning(text: str | None) -> dict[str, str]:
    """`SIGNAL@DURATION` as the document has it."""
    if text is None:
        return {}
    signal, at, wait = text.partition("@")
    if not (signal and at and wait):
        raise click.BadParameter(f"{text!r} is not SIGNAL@DURATION", param_hint="--warn")
    return {"signal": signal, "warning": wait}


def _sentence(error: FieldError) -> str:
    text = f"{error.path}: {error.cause}" if error.path else error.cause
    return f"{text}; {error.hint}" if error.hint else text


def within(namespace: str | None, document: dict[str, Any]) -> dict[str, Any]:
    """The document in this namespace, unless it names one itself."""
    return document if namespace is None else {"namespace": namespace} | document
