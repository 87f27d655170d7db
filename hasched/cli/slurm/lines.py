"""The `#SBATCH` lines of a script, as sbatch reads them: getopt's forms, before the first command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from hasched.model.kinds import suggest

DIRECTIVE = "#SBATCH"
_DIRECTIVE = re.compile(rf"{DIRECTIVE}[ \t]+(.*)")

# By their long names: the letter, if there is one, and how many values: 1, 0, or "?" for one that may be left out.
OPTIONS: dict[str, tuple[str, int | str]] = {
    "account": ("A", 1), "acctg-freq": ("", 1), "array": ("a", 1), "bb": ("", 1), "bbf": ("", 1), "begin": ("b", 1),
    "chdir": ("D", 1), "cluster-constraint": ("", 1), "clusters": ("M", 1), "comment": ("", 1), "constraint": ("C", 1),
    "container": ("", 1), "contiguous": ("", 0), "core-spec": ("S", 1), "cores-per-socket": ("", 1),
    "cpu-bind": ("", 1), "cpu-freq": ("", 1), "cpus-per-gpu": ("", 1), "cpus-per-task": ("c", 1), "deadline": ("", 1),
    "delay-boot": ("", 1), "dependency": ("d", 1), "distribution": ("m", 1), "error": ("e", 1), "exclude": ("x", 1),
    "exclusive": ("", "?"), "export": ("", 1), "export-file": ("", 1), "extra-node-info": ("B", 1),
    "get-user-env": ("", "?"), "gid": ("", 1), "gpu-bind": ("", 1), "gpu-freq": ("", 1), "gpus": ("G", 1),
    "gpus-per-node": ("", 1), "gpus-per-socket": ("", 1), "gpus-per-task": ("", 1), "gres": ("", 1),
    "gres-flags": ("", 1), "hint": ("", 1), "hold": ("H", 0), "ignore-pbs": ("", 0), "input": ("i", 1),
    "job-name": ("J", 1), "kill-on-invalid-dep": ("", 1), "licenses": ("L", 1), "mail-type": ("", 1),
    "mail-user": ("", 1), "mcs-label": ("", 1), "mem": ("", 1), "mem-bind": ("", 1), "mem-per-cpu": ("", 1),
    "mem-per-gpu": ("", 1), "mincpus": ("", 1), "network": ("", 1), "nice": ("", "?"), "no-kill": ("k", "?"),
    "no-requeue": ("", 0), "nodefile": ("F", 1), "nodelist": ("w", 1), "nodes": ("N", 1), "ntasks": ("n", 1),
    "ntasks-per-core": ("", 1), "ntasks-per-gpu": ("", 1), "ntasks-per-node": ("", 1), "ntasks-per-socket": ("", 1),
    "open-mode": ("", 1), "output": ("o", 1), "overcommit": ("O", 0), "oversubscribe": ("s", 0), "parsable": ("", 0),
    "partition": ("p", 1), "power": ("", 1), "prefer": ("", 1), "priority": ("", 1), "profile": ("", 1),
    "propagate": ("", "?"), "qos": ("q", 1), "quiet": ("Q", 0), "reboot": ("", 0), "requeue": ("", 0),
    "reservation": ("", 1), "signal": ("", 1), "sockets-per-node": ("", 1), "spread-job": ("", 0), "switches": ("", 1),
    "test-only": ("", 0), "thread-spec": ("", 1), "threads-per-core": ("", 1), "time": ("t", 1), "time-min": ("", 1),
    "tmp": ("", 1), "uid": ("", 1), "use-min-nodes": ("", 0), "verbose": ("v", 0), "wait": ("W", 0),
    "wait-all-nodes": ("", 1), "wckey": ("", 1),
}  # fmt: skip
_BY_LETTER = {letter: name for name, (letter, _) in OPTIONS.items() if letter}


class Option(NamedTuple):
    """One option of a line. `value` is empty where it has none; `fault` says why it can't be read."""

    line: int
    name: str  # the long one
    value: str
    fault: str = ""


def read_options(text: str) -> Iterator[Option]:
    """Every option of the lines before the first command, in their order."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            return
        if line.split()[:2] == [DIRECTIVE, "hetjob"]:
            yield Option(number, "hetjob", "")
        elif (match := _DIRECTIVE.fullmatch(line)) is not None:
            try:
                words = shlex.split(match[1], comments=True)
            except ValueError as error:
                yield Option(number, match[1], "", str(error))
                continue
            yield from _read_words(number, words)


def is_read(line: str) -> bool:
    """Whether a line is one of those, wherever it stands."""
    return _DIRECTIVE.fullmatch(line) is not None


def _read_words(number: int, words: list[str]) -> Iterator[Option]:
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word.startswith("--"):
            written, equals, value = word[2:].partition("=")
            name = _full_name(written)
        elif word.startswith("-") and len(word) > 1:
            name, value = _BY_LETTER.get(word[1], ""), word[2:].removeprefix("=")
            equals, written = value, word[1]
        else:
            yield Option(number, word, "", "it belongs to no option")
            continue
        if name not in OPTIONS:
            hint = suggest(written, OPTIONS) if len(written) > 1 else ""
            yield Option(number, written, value, "sbatch has no such option" + (f"; {hint}" if hint else ""))
            continue
        takes = OPTIONS[name][1]
        if takes == 1 and not equals:
            if not waiting:
                yield Option(number, name, "", "it has no value")
                continue
            value = waiting.pop(0)
        if takes == 0 and value:
            yield Option(number, name, value, "it takes no value")
            continue
        yield Option(number, name, value)


def _full_name(written: str) -> str:
    """The option that is written so, or begins so and is the only one."""
    if written in OPTIONS:
        return written
    found = [name for name in OPTIONS if written and name.startswith(written)]
    return found[0] if len(found) == 1 else written
