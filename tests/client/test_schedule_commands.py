"""`hasched schedule`: what people see of what the managers answer."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner
from scripted_manager import Scene, reply

from hasched.cli.exits import Exit
from hasched.cli.main import cli

TWO = """\
name: first
every: 1h
job: {name: x, command: ["true"]}
---
name: second
every: 1h
job: {name: x, command: ["true"]}
"""


def view(name: str) -> dict[str, Any]:
    said = {"name": name, "state": "active", "when": "every 1h", "timezone": "UTC", "namespace": "default"}
    return {**said, "actor": "ada", "created_ms": 0, "changed_ms": 0, "log_index": 1}


def test_what_was_put_before_a_refusal_is_said(scene: Scene) -> None:
    scene.manager(reply(200, view("first")), reply(409, "unknown_namespace"))
    context = scene.context()
    env = {"HASCHED_MANAGERS": ",".join(context.managers), "HASCHED_CA": context.ca, "HASCHED_TOKEN": context.token}
    result = CliRunner().invoke(cli, ["schedule", "apply", "-"], env=env, prog_name="hasched", input=TWO)
    assert result.exit_code == Exit.NOT_FOUND
    assert result.stdout.startswith("schedule first: every 1h, next ") and "second" not in result.stdout
    assert "told so" in result.stderr
