"""The published schemas say of a file what the program says of it: of every YAML in the pages and examples, and of others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from jsonschema import Draft202012Validator

from hasched.cli.main import cli
from hasched.cli.schemas import NAMES, schema_of
from hasched.model.errors import HaschedError
from hasched.model.parameters import check_template
from hasched.model.parse import parse_spec
from hasched.model.policy_text import parse_policy
from hasched.model.workflow_text import parse_workflow
from hasched.model.yaml_text import read_documents
from hasched.timetable.text import parse_schedule
from tests.model.test_parse_anything import BAD, GOOD

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- file: (\S+) -->\n)?```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCHEMAS = {name: Draft202012Validator(schema_of(name)) for name in NAMES}
PARSERS = {
    "job": parse_spec,
    "job-template": check_template,
    "policy": lambda document: parse_policy(document["kind"], document["name"], document),
    "schedule": parse_schedule,
    "workflow": parse_workflow,
}


def kind_of(document: Any) -> str:
    """What a document is; empty for the configuration of a daemon, or a part of something."""
    keys = document.keys() if isinstance(document, dict) else ()
    if "kind" in keys:
        return "policy"
    if "tasks" in keys:
        return "workflow"
    if {"cron", "every", "at"} & keys:
        return "schedule"
    if {"command", "script"} & keys:
        return "job-template" if "parameters" in keys else "job"
    return ""


def texts() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, (name, text) in enumerate(BLOCK.findall(page.read_text())):
            yield f"{page.name}-{name or number}", text
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        yield path.name, path.read_text()


def read() -> Iterator[tuple[str, str, Any]]:
    for name, text in texts():
        for number, document in enumerate(read_documents(text, name)):
            if kind := kind_of(document.value):
                yield f"{name}-{number}", kind, document.value


FOUND = list(read())


def is_taken(kind: str, document: Any) -> bool:
    try:
        problems = PARSERS[kind](document)
    except HaschedError as error:
        named = "there is no job template" in error.cause or "there is no workflow" in error.cause
        return named  # in the cluster, which isn't asked here
    return kind != "job-template" or not problems


def test_there_are_files_of_every_kind():
    found = [kind for _, kind, _ in FOUND]
    assert {kind: found.count(kind) > 0 for kind in NAMES} == dict.fromkeys(NAMES, True)
    assert len(found) > 45
    refused = {name.partition("-")[2] for name, kind, document in FOUND if not is_taken(kind, document)}
    assert refused == {"wrong.yaml-0"}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_the_command_prints_it(name: str):
    Draft202012Validator.check_schema(schema_of(name))
    group = {"job-template": "template"}.get(name, name)
    done = CliRunner().invoke(cli, [group, "schema", "--json"], prog_name="hasched")
    assert (done.exit_code, json.loads(done.stdout)) == (0, schema_of(name))


@pytest.mark.parametrize(("kind", "document"), [found[1:] for found in FOUND], ids=[found[0] for found in FOUND])
def test_a_file_of_a_page_or_an_example_is_what_its_schema_says(kind: str, document: Any):
    mistakes = [f"{error.json_path}: {error.message}" for error in SCHEMAS[kind].iter_errors(document)]
    if is_taken(kind, document):
        assert mistakes == []


@pytest.mark.parametrize(("kind", "document"), [found[1:] for found in FOUND], ids=[found[0] for found in FOUND])
def test_a_key_that_there_isn_t_is_refused_by_both(kind: str, document: Any):
    wrong = {**document, "jokes": 3}
    assert not is_taken(kind, wrong)
    assert not SCHEMAS[kind].is_valid(wrong)


@given(GOOD | BAD)
def test_a_job_that_is_taken_is_valid(document: dict[str, Any]):
    if is_taken("job", document):
        assert [error.message for error in SCHEMAS["job"].iter_errors(document)] == []
