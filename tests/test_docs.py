"""The pages name only commands that exist, with options that these have, and link only to what is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from hasched.cli.main import cli

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
VALUES = frozenset({"prod"})  # of global options, which stand before the command
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
CALL = re.compile(r"(?:^|[\s/$(`])hasched ([a-z-].*)")


def commands_in(text: str) -> Iterator[str]:
    """What follows `hasched` in code: lines of blocks, and spans in a sentence."""
    blocks = FENCE.findall(text)
    indented = re.findall(r"^ {4}(?=\S)(.*)$", text, re.MULTILINE)
    for line in [
        *(line for block in blocks for line in block.splitlines()),
        *indented,
        *SPAN.findall(FENCE.sub("", text)),
    ]:
        if (call := CALL.search(line)) is not None:
            yield call[1]


def find_mistake(call: str) -> str | None:
    """Why `hasched CALL` can't be meant: a word that is no command, or an option that the command doesn't have."""
    try:
        words = shlex.split(call.split(" | ", maxsplit=1)[0].split(" > ", maxsplit=1)[0], comments=True)
    except ValueError:
        words = call.split()
    command: click.Command = cli
    context = click.Context(cli)
    options = set(cli.get_help_option_names(context)) | {each for parameter in cli.params for each in parameter.opts}
    for word in words:
        if word == "--":
            return None
        if word.startswith("-"):
            if re.fullmatch(r"--?[a-z-]+", word) and word not in options:
                return f"{command.name} has no option {word}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z-]+", word):
            found = command.get_command(context, word)
            if found is None:
                if word in VALUES:
                    continue
                return f"there is no command {word!r}"
            command = found
            options |= {each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)}
    return None


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_exist(page: Path):
    mistakes = {f"hasched {call}": mistake for call in commands_in(page.read_text()) if (mistake := find_mistake(call))}
    assert not mistakes


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_links_of_a_page_lead_somewhere(page: Path):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


def test_a_mistake_would_be_found():
    assert find_mistake("job dance 7") == "there is no command 'dance'"
    assert find_mistake("job list --jokes") == "list has no option --jokes"
    assert sorted(commands_in("see `hasched job list` and\n\n```\n$ /opt/bin/hasched top\n```\n")) == [
        "job list",
        "top",
    ]
