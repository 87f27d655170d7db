"""What the command line says, and exits with, when managers can't or won't answer."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from scripted_manager import Scene, hang_up, reply

from hasched.cli.exits import Exit
from hasched.cli.main import cli


def invoke(scene: Scene, *arguments: str) -> Result:
    context = scene.context()
    env = {"HASCHED_MANAGERS": ",".join(context.managers), "HASCHED_CA": context.ca, "HASCHED_TOKEN": context.token}
    return CliRunner().invoke(cli, ["--timeout", "300ms", *arguments], env=env, prog_name="hasched")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_submission_of_unknown_outcome_can_be_repeated_by_what_is_printed(scene: Scene, as_json: bool) -> None:
    scene.manager(hang_up)
    result = invoke(scene, "job", "run", *(["--json"] if as_json else []), "--", "true")
    assert result.exit_code == Exit.TEMPORARY
    sent = {headers["Idempotency-Key"] for _, _, headers, _ in scene.requests()}
    assert len(sent) == 1
    assert f"run it again with --submission-id {sent.pop()}" in result.stderr
    assert "no manager answered" not in result.stderr
    if as_json:
        problem = json.loads(result.stderr)
        assert problem["code"] == "outcome_unknown"
        assert problem["submission_id"] in problem["hint"]


def test_nobody_leading_is_told_apart_from_nobody_there(scene: Scene) -> None:
    scene.manager(reply(503, "no_leader"))
    assert invoke(scene, "job", "show", "1").exit_code == Exit.TEMPORARY


@pytest.mark.parametrize("command", ["cancel", "suspend", "resume", "update --queue=q", "delete"])
def test_one_refusal_does_not_keep_the_rest_of_the_jobs(scene: Scene, command: str) -> None:
    job = {"id": 2, "name": "j", "state": "RUNNING", "queue": "q", "priority": 0, "actor": "a", "count": 1}
    job |= {"submission_id": "s", "tasks": {"RUNNING": 1}}
    done = reply(204, b"") if command == "delete" else reply(200, job)
    scene.manager(done, reply(409, "conflict"), reply(404, "not_found"), done)
    result = invoke(scene, "job", *command.split(), "2", "3", "4", "5")
    assert [path.split("/")[3] for _, path, _, _ in scene.requests()] == ["2", "3", "4", "5"]
    assert result.exit_code == Exit.REFUSED
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.count("hasched: told so") == 2
