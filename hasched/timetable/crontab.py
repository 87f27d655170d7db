"""Crontabs as schedules: `crontab -l` becomes documents, and every line that can't is named with its reason."""

from __future__ import annotations

import re
import shlex
from typing import Any, NamedTuple

from hasched.timetable.cron import MACROS, parse_cron
from hasched.timetable.zones import zone_names

_VARIABLE = re.compile(r"""\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*("[^"]*"|'[^']*'|.*?)\s*""")
_NOT_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_INTERPRETER = re.compile(r"/[^\s]{1,100}")
_SHELL = "/bin/sh"
_TOLD_BY = "who is told is said by a notification: name it with `--notify`"
_OWN = {
    "HOME": "a task runs in an empty directory, or the job's `working_dir`",
    "LOGNAME": "tasks run as the agent's user",
    "USER": "tasks run as the agent's user",
}


class Import(NamedTuple):
    """Schedules as documents, and what was not taken, a sentence for each."""

    documents: list[dict[str, Any]]
    problems: list[str]


def read_crontab(
    text: str, *, prefix: str = "", timezone: str = "UTC", system: bool = False, notify: str = ""
) -> Import:
    """The schedules of a crontab. `system`: each line names a user before its command, as in /etc/crontab. `notify`: the
    notification that is told when a run fails, where cron would send mail."""
    documents: list[dict[str, Any]] = []
    problems: list[str] = []
    env: dict[str, str] = {}
    zone, taken = timezone, dict[str, None]()
    shell, mails = "", True
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if (match := _VARIABLE.fullmatch(line)) is not None and not stripped[0].isdigit():
            name, value = match[1], match[2].strip("\"'") if match[2][:1] in "\"'" else match[2]
            if name in ("CRON_TZ", "TZ"):
                if value in zone_names():
                    zone = value
                else:
                    problems.append(f"line {number}: there is no time zone {value!r}; {zone} stays")
            elif name.startswith("MAIL"):
                mails = bool(value) if name == "MAILTO" else mails
                if value and not notify:
                    problems.append(f"line {number}: {name} is not taken: {_TOLD_BY}")
            elif name == "SHELL":
                shell = "" if value == _SHELL else value
                if shell and not _INTERPRETER.fullmatch(shell):
                    shell = ""
                    problems.append(f"line {number}: SHELL={value} is not taken: scripts are run by {_SHELL}")
            elif name in _OWN:
                problems.append(f"line {number}: {name} is not taken: {_OWN[name]}")
            else:
                env = {**env, name: value}
            continue
        try:
            expression, command = _split(stripped)
            parse_cron(expression)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if system:
            user, _, command = command.partition(" ")
            problems.append(f"line {number}: the user {user} is not taken: tasks run as the agent's user")
        script, given = _split_input(command.strip())
        job: dict[str, Any] = {"script": script}
        if given:
            job["input"] = given
            job["script"] = f'exec < "$HASCHED_INPUT"\n{script}'
        if shell:
            job["script"] = f"#!{shell}\n{job['script']}"
        if notify and mails:
            job["notify"] = {"targets": [notify], "events": ["job.failed"]}
        if env:
            job["env"] = env
        name = _name_of(script, prefix, taken)
        documents.append({"name": name, "cron": expression, "timezone": zone, "catch_up": "skip", "job": job})
    return Import(documents, problems)


def _split(line: str) -> tuple[str, str]:
    """The expression and the command of a line. Raises ValueError."""
    if line.startswith("@"):
        word, _, command = line.partition(" ")
        if word.lower() == "@reboot" or word.lower() not in MACROS:
            parse_cron(word)
        expression = MACROS[word.lower()]
    else:
        parts = line.split(None, 5)
        if len(parts) < 6:
            raise ValueError("it has no command after its five fields")
        expression, command = " ".join(parts[:5]), parts[5]
    if not command.strip():
        raise ValueError("it has no command")
    return expression, command


def _split_input(command: str) -> tuple[str, str]:
    """cron takes what stands after the first `%` for input, and every further one for a new line; `\\%` is a percent sign."""
    parts = re.split(r"(?<!\\)%", command)
    plain = [part.replace("\\%", "%") for part in parts]
    return plain[0].strip(), "\n".join(plain[1:]) + "\n" if len(plain) > 1 else ""


def _name_of(script: str, prefix: str, taken: dict[str, None]) -> str:
    """A name after the program, with a number where others have it."""
    try:
        words = shlex.split(script)
    except ValueError:
        words = script.split()
    program = next((word for word in words if "=" not in word), "job").rpartition("/")[2]
    base = _NOT_NAME.sub("-", prefix + program).strip("-._")[:100] or "job"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken[name] = None
    return name
