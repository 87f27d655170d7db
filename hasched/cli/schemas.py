"""The JSON Schemas of the files that people write, made from what reads them: printed by commands, and kept in docs/schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from hasched.cli.settings import json_option

NAMES = {
    "job": "a file of jobs",
    "job-template": "a file for `hasched template put`",
    "policy": "a file of policies",
    "schedule": "a file of schedules",
    "workflow": "a file of a workflow",
}


def schema_of(name: str) -> dict[str, Any]:
    """The schema of one of NAMES, for each document of such a file."""
    from hasched.model.parse import spec_schema
    from hasched.model.policy_text import policy_schema
    from hasched.model.workflow_keys import template_schema, workflow_schema
    from hasched.timetable.text import schedule_schema

    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "job": spec_schema,
        "job-template": template_schema,
        "policy": policy_schema,
        "schedule": schedule_schema,
        "workflow": workflow_schema,
    }
    made = makers[name]()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"hasched {name}", **made}


def schema_file(name: str) -> str:
    """The text of docs/schemas/NAME.json."""
    return json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"


def schema_command(name: str) -> click.Command:
    """`schema`, for the group of commands that has to do with such files."""

    @click.command("schema", help=f"Print the JSON Schema of {NAMES[name]}, for editors.")
    @json_option
    def schema() -> None:
        click.echo(schema_file(name), nl=False)

    return schema
