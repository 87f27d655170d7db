"""A page of the documentation as a script: its files are written, its commands run, and their output compared.

What counts stands behind a comment, which a reader of the rendered page doesn't see:

    <!-- file: NAME -->       the block that follows is written to NAME, in the directory where the commands run
    <!-- run -->              the block that follows is a terminal: `$ COMMAND`, a line that ends in `\\` goes on, and below
                              it all that the command says on either stream. `…` stands for any text within a line,
                              a line `…` for any lines. It is a shell: variables live until the end of the section
    <!-- run: exit N -->      likewise, and the last command of the block ends with the code N instead of 0
    <!-- run: until -->       likewise, for commands that only look: each is repeated until it says so

A section (`## …`) is one terminal. A block without such a comment is only shown.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 30.0
_SECTION = re.compile(r"^## +(.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^<!-- (file|run)(?:: (.*?))? -->\n+```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *<!-- *(?:file|run)\b", re.MULTILINE)
_SILENCE = "hasched: no manager answers yet: "  # said on a busy machine, and of no page's concern
_STATUS = "--- exit status of the command above:"  # nothing else prints this


class Step(NamedTuple):
    """A command of a terminal, what it is to say, and how it is to end."""

    command: str
    output: str
    code: int = 0
    until: bool = False


class File(NamedTuple):
    name: str
    text: str


def sections(page: Path) -> dict[str, list[Step | File]]:
    """The steps of each section that has any, by its heading."""
    return sections_of(page.read_text())


def sections_of(page: str) -> dict[str, list[Step | File]]:
    """Likewise, of a page's text."""
    _, *parts = _SECTION.split(page)
    found = {heading: list(_steps(text)) for heading, text in zip(parts[::2], parts[1::2], strict=True)}
    return {heading: steps for heading, steps in found.items() if steps}


def _steps(text: str) -> Iterator[Step | File]:
    blocks = _BLOCK.findall(text)
    assert len(blocks) == len(_COMMENT.findall(text)), f"a comment isn't followed by a block:\n{text}"
    for kind, argument, block in blocks:
        if kind == "file":
            yield File(argument, block)
            continue
        assert re.fullmatch(r"|until|exit \d+", argument), f"<!-- run: {argument} --> has no meaning"
        code = int(argument.removeprefix("exit ")) if argument.startswith("exit") else 0
        before, *commands = re.split(r"^\$ ((?:.*\\\n)*.*\n)", block, flags=re.MULTILINE)
        assert not before, f"output without a command:\n{block}"
        pairs = list(zip(commands[::2], commands[1::2], strict=True))
        for number, (command, output) in enumerate(pairs, 1):
            yield Step(command.strip(), output, code if number == len(pairs) else 0, until=argument == "until")


def matches(expected: str, said: str) -> bool:
    """Whether output is what a page shows, with its `…`.

    Spaces at the ends of lines don't count, and two of them stand for any more: columns are as wide as what is in them.
    """
    lines = []
    for line in expected.rstrip().splitlines():
        escaped = re.sub(r"(\\ ){2,}", " {2,}", re.escape(line.rstrip())).replace("…", ".*")
        lines.append(r"(?:.*\n)*?" if line.strip() == "…" else escaped + r" *\n")
    return re.fullmatch("".join(lines), f"{said.rstrip()}\n" if said.strip() else "") is not None


class Terminal:
    """One shell. Its commands share variables and the directory."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def take(self, step: Step | File) -> None:
        """Do one step; fails with what it said instead."""
        if isinstance(step, File):
            (self.folder / step.name).write_text(step.text)
            return
        give_up = time.monotonic() + PATIENCE_S
        while True:
            said, code = self.run(step.command)
            if code == step.code and matches(step.output, said):
                return
            if not step.until or time.monotonic() > give_up:
                break
            time.sleep(0.05)
        raise AssertionError(
            f"$ {step.command}\n{said}(exit {code})\n\nthe page says:\n{step.output}(exit {step.code})"
        )

    def run(self, command: str) -> tuple[str, int]:
        """What a command says, and its exit code."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n%s %d\\n' '{_STATUS}' $?\n")
        self._shell.stdin.flush()
        said: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(_STATUS):
                return "".join(said).removesuffix("\n"), int(line.rpartition(" ")[2])
            if not line.startswith(_SILENCE):
                said.append(line)
        raise AssertionError(f"the shell is gone after:\n$ {command}\n{''.join(said)}")

    def close(self) -> None:
        self._shell.communicate()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # what failed may wait for ever
            os.killpg(self._shell.pid, signal.SIGKILL)
        self.close()
