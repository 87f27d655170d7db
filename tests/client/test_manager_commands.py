"""`hasched manager add|remove|transfer|check|list`: what is asked of the managers, and what people are told while they wait."""

from __future__ import annotations

import json
import threading
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from scripted_manager import Answer, Handler, Scene, reply

from hasched.cli.exits import Exit
from hasched.cli.main import cli
from hasched.client import wire
from hasched.client.policy import LIFE_PATH
from hasched.client.sync import Client
from hasched.model.views import ManagerPage, ManagerView

ADD = ("manager", "add", "m4", "--api", "https://m4:7411", "--raft", "m4:7412")
AGREED = {"log_index": 70, "time_ms": 1_790_000_000_000, "agreed": True, "differing": [], "silent": []}


def invoke(scene: Scene, *arguments: str) -> Result:
    context = scene.context()
    env = {"HASCHED_MANAGERS": ",".join(context.managers), "HASCHED_CA": context.ca, "HASCHED_TOKEN": context.token}
    return CliRunner().invoke(cli, arguments, env=env, prog_name="hasched")


def view(name: str = "m4", **fields: Any) -> dict[str, Any]:
    known = {"id": name, "api_url": f"https://{name}:7411", "raft_address": f"{name}:7412", "role": "follower"}
    known |= {"term": 3, "last_index": 70, "commit_index": 70, "applied_index": 70, "version": "1", "reachable": True}
    return known | fields


def page(*managers: dict[str, Any], leader: str | None = "m1", check: dict[str, Any] | None = None) -> Answer:
    return reply(200, {"managers": managers, "leader": leader, "check": check})


def asked(scene: Scene) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _, _ in scene.requests()]


def test_add_says_what_it_waits_for_and_ends_with_the_vote(scene: Scene) -> None:
    scene.manager(
        reply(200, view(membership="joining")),
        page(view(membership="joining")),
        page(view(membership="learner", connected=False)),
        page(view(membership="learner", connected=False)),
        page(leader=None),
        page(view(membership="learner", connected=True, filled=False)),
        page(view(membership="learner", connected=True, filled=True)),
        page(view(membership="voter", connected=True, filled=True)),
    )
    result = invoke(scene, *ADD)
    assert (result.exit_code, result.stdout) == (Exit.OK, "manager m4 is there and votes\n")
    assert [line.removeprefix("hasched: m4: ").split(";")[0] for line in result.stderr.splitlines()] == [
        "waiting until the leader takes it in",
        "not connected yet",
        "the manager that answers does not know of it",
        "connected",
        "filled",
    ]
    method, path, _, body = scene.requests()[0]
    assert (method, path) == ("POST", "/v1/managers")
    assert json.loads(body) == {"id": "m4", "api_url": "https://m4:7411", "raft_address": "m4:7412"}


def test_add_gives_up_with_what_to_do(scene: Scene) -> None:
    scene.manager(reply(200, view(membership="joining")), page(view(membership="learner", connected=False)))
    result = invoke(scene, *ADD, "--patience", "0s")
    assert result.exit_code == Exit.TIMED_OUT
    assert "start it with `join: true`, reachable at m4:7412" in result.stderr
    assert "hasched manager remove m4" in result.stderr


def test_add_need_not_wait_and_a_program_gets_what_there_is(scene: Scene) -> None:
    scene.manager(reply(200, view(membership="joining")))
    result = invoke(scene, *ADD, "--no-wait", "--json")
    assert json.loads(result.stdout)["membership"] == "joining"
    assert asked(scene) == [("POST", "/v1/managers")]


def test_a_cluster_that_cannot_answer_is_waited_for(scene: Scene) -> None:
    scene.manager(
        reply(200, view(membership="joining")), reply(503, "no_leader"), page(view(membership="voter", connected=True))
    )
    result = invoke(scene, "--timeout", "1ms", *ADD)
    assert (result.exit_code, result.stderr) == (Exit.OK, "hasched: m4: told so\n")


def test_remove_waits_for_the_leader_to_hand_over(scene: Scene) -> None:
    scene.manager(
        reply(204, b""),
        page(view("m1", membership="leaving"), view("m2")),
        page(view("m1", membership="leaving"), view("m2"), leader="m2"),
        page(view("m2"), leader="m2"),
    )
    result = invoke(scene, "manager", "remove", "m1")
    assert (result.exit_code, result.stdout.split(";")[0]) == (Exit.OK, "manager m1 is removed")
    assert result.stderr.splitlines() == [
        "hasched: m1: it leads, and hands over first",
        "hasched: m1: waiting until the others can go on without it",
    ]
    assert asked(scene)[0] == ("DELETE", "/v1/managers/m1")


def test_a_refusal_is_told_and_nothing_is_waited_for(scene: Scene) -> None:
    scene.manager(reply(409, "last_manager"))
    result = invoke(scene, "manager", "remove", "m1")
    assert (result.exit_code, len(scene.requests())) == (Exit.REFUSED, 1)


@pytest.mark.parametrize(("name", "path"), [((), "/v1/managers/lead"), (("m2",), "/v1/managers/m2/lead")])
def test_transfer(scene: Scene, name: tuple[str, ...], path: str) -> None:
    scene.manager(reply(200, {"leader": "m2"}))
    assert invoke(scene, "manager", "transfer", *name).stdout == "manager m2 leads\n"
    assert asked(scene) == [("POST", path)]


def test_a_transfer_that_failed_may_be_tried_again(scene: Scene) -> None:
    scene.manager(reply(409, "transfer_failed"))
    assert invoke(scene, "manager", "transfer").exit_code == Exit.TEMPORARY


def test_check_waits_for_the_result_of_its_own_question(scene: Scene) -> None:
    scene.manager(
        reply(200, {"log_index": 70}), page(check=None), page(check=AGREED | {"log_index": 69}), page(check=AGREED)
    )
    result = invoke(scene, "manager", "check")
    assert (result.exit_code, "states agree as of entry 70" in result.stdout) == (Exit.OK, True)
    assert result.stderr == "hasched: check: the managers compute the digest of entry 70\n"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"differing": ["m2"]}, "THE STATE of m2 DIFFERS"),
        ({"agreed": False, "differing": ["m1", "m2"]}, "NO MAJORITY"),
    ],
)
def test_a_state_that_differs_is_told_loudly(scene: Scene, found: dict[str, Any], words: str) -> None:
    scene.manager(reply(200, {"log_index": 70}), page(check=AGREED | found))
    result = invoke(scene, "manager", "check")
    assert (result.exit_code, words in result.stdout) == (Exit.INTERNAL, True)
    scene.managers[0].answers[:] = [reply(200, {"log_index": 70}), page(check=AGREED | found)]
    result = invoke(scene, "manager", "check", "--json")
    assert (result.exit_code, json.loads(result.stdout)["differing"]) == (Exit.INTERNAL, found["differing"])


def test_the_list_says_who_votes_and_what_the_last_comparison_found(scene: Scene) -> None:
    scene.manager(
        page(
            view("m1", connected=True, filled=True),
            view("m2", connected=True, filled=False),
            view("m3", membership="leaving"),
            view("m4", membership="learner", connected=True),
            check=AGREED | {"silent": ["m2"]},
        )
    )
    lines = invoke(scene, "manager", "list").stdout.splitlines()
    assert [line.split()[2] for line in lines[:5]] == ["VOTE", "yes", "filling", "leaving", "learner"]
    assert lines[-1].startswith("the managers' states agree as of entry 70")
    assert lines[-1].endswith("; m2 did not answer")


def test_a_manager_of_an_older_version_is_understood() -> None:
    old = {key: value for key, value in view("m1").items() if key != "membership"}
    shown = msgspec.convert({"managers": [old], "leader": "m1"}, ManagerPage)
    assert shown.managers[0] == msgspec.convert(old, ManagerView)
    assert (shown.managers[0].membership, shown.check) == ("voter", None)


def answer_late(handler: Handler) -> None:
    """When whoever watches the clock has spoken; it shows that it lives meanwhile."""
    if handler.path != LIFE_PATH:
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join(30)
    page(view("m1"))(handler)


def test_long_silence_is_told_of_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE_S", 0.01)
    told: list[str] = []
    manager = scene.manager(answer_late)
    with Client(scene.context(), on_silence=told.append) as client:
        client.managers()
        client.managers()
    assert told == [f"{manager.url}: has not answered"]


def test_a_question_that_is_worked_out_first_is_no_silence(scene: Scene) -> None:
    watching: list[threading.Thread] = []

    def answer(handler: Handler) -> None:
        watching.extend(thread for thread in threading.enumerate() if isinstance(thread, threading.Timer))
        forecast = {"log_index": 1, "now_ms": 1, "until_ms": 2, "jobs": [], "endless": 0, "cut_short": False}
        reply(200, forecast if "forecast" in handler.path else {"managers": [], "leader": None})(handler)

    scene.manager(answer)
    with Client(scene.context(), on_silence=str) as client:
        client.forecast()
        assert watching == []
        client.managers()
        assert len(watching) == 1, "else a silence would be told of"


def test_the_command_line_says_that_nobody_answers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE_S", 0.01)
    manager = scene.manager(answer_late)
    told = invoke(scene, "manager", "list").stderr
    assert told == f"hasched: no manager answers yet: {manager.url}: has not answered\n"
    assert invoke(scene, "manager", "list", "--json").stderr == ""
