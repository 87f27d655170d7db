"""`hasched policy`, `queue`, `quota` and `namespace`: what is asked of the managers, and what people see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scripted_manager import Scene, reply

from hasched.cli.exits import Exit
from hasched.cli.main import cli
from hasched.client.aio import AsyncClient
from hasched.client.sync import Client
from hasched.model.views import PolicyView


def invoke(scene: Scene, *arguments: str, text: str | None = None, **more: str) -> Result:
    context = scene.context()
    env = {
        "HASCHED_MANAGERS": ",".join(context.managers),
        "HASCHED_CA": context.ca,
        "HASCHED_TOKEN": context.token,
        **more,
    }
    return CliRunner().invoke(cli, arguments, env=env, prog_name="hasched", input=text)


def view(kind: str, name: str, document: dict[str, Any], log_index: int = 7) -> dict[str, Any]:
    audit = {
        "actor": "ada",
        "changed_ms": 1_790_000_000_000 if log_index else 0,
        "log_index": log_index,
        "built_in": not log_index,
    }
    return {"kind": kind, "name": name, "document": document, **audit}


def page(*views: dict[str, Any]) -> Any:
    return reply(200, {"policies": list(views)})


DOCUMENTS = """\
kind: queue
name: batch
priority: 3
---
kind: quota
name: red
limits: {cpu: 8, gpus: 2}
"""


def test_apply_puts_what_differs_and_only_while_it_is_what_was_seen(scene: Scene) -> None:
    batch, red = view("queue", "batch", {"weight": 2}), view("quota", "red", {"limits": {"cpu": 8, "gpus": 2}})
    scene.manager(reply(204, b""), page(batch, red), reply(200, batch))
    result = invoke(scene, "policy", "apply", "-", text=DOCUMENTS)
    assert (result.exit_code, result.stdout) == (Exit.OK, "queue/batch changed\nquota/red unchanged\n")
    assert [(method, path) for method, path, _, _ in scene.requests()] == [
        ("POST", "/v1/policies/check"),
        ("GET", "/v1/policies"),
        ("PUT", "/v1/policies/queue/batch?if_index=7"),
    ]
    assert json.loads(scene.requests()[2][3]) == {"priority": 3}


def test_nothing_of_a_file_is_put_of_which_the_managers_refuse_a_part(scene: Scene) -> None:
    refusal = {"code": "unknown_namespace", "cause": "there is no namespace red", "hint": "there are: default"}
    scene.manager(reply(409, refusal))
    result = invoke(scene, "policy", "apply", "-", text=DOCUMENTS)
    assert result.exit_code == Exit.REFUSED and "there is no namespace red" in result.stderr
    assert [path for _, path, _, _ in scene.requests()] == ["/v1/policies/check"]


def test_a_dry_run_shows_the_difference_and_puts_nothing(scene: Scene) -> None:
    present = page(view("queue", "batch", {"weight": 2, "priority": 1}))
    scene.manager(reply(204, b""), present, reply(204, b""), present)
    result = invoke(scene, "policy", "apply", "--dry-run", "-", text=DOCUMENTS)
    assert result.stdout == (
        "queue/batch would be changed\n  ~ priority: 1 -> 3\n  - weight: 2\n"
        "quota/red would be created\n  + limits.cpu: 8\n  + limits.gpus: 2\n"
    )
    assert [(method, path) for method, path, _, _ in scene.requests()] == [
        ("POST", "/v1/policies/check"),
        ("GET", "/v1/policies"),
    ]
    assert [each["name"] for each in json.loads(scene.requests()[0][3])["policies"]] == ["batch", "red"]
    told = json.loads(invoke(scene, "policy", "apply", "--dry-run", "--json", "-", text=DOCUMENTS).stdout)
    assert [(each["name"], each["did"]) for each in told["policies"]] == [("batch", "changed"), ("red", "created")]


def test_a_mistake_has_its_line_and_then_nothing_is_sent(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(DOCUMENTS + "---\nname: x\n---\nkind: queue\nname: y\nwieght: 2\n")
    result = invoke(scene, "policy", "apply", str(file), "--json")
    assert result.exit_code == Exit.BAD_INPUT
    told = json.loads(result.stderr)
    assert told["code"] == "invalid_policy"
    assert [(each["path"], each["line"]) for each in told["errors"]] == [("kind", 9), ("wieght", 13)]
    said = invoke(scene, "policy", "apply", str(file)).stderr
    assert said.count("did you mean 'weight'?") == 1 and said.endswith("did you mean 'weight'?\n")
    assert "there is no policy in it" in invoke(scene, "policy", "apply", "-", text="").stderr


def test_what_is_shown_can_be_applied(scene: Scene) -> None:
    scene.manager(reply(200, view("quota", "red", {"limits": {"cpu": 8}})))
    shown = invoke(scene, "policy", "get", "quota", "red").stdout
    assert shown.splitlines()[0].startswith("# put by ada at ")
    assert shown.splitlines()[1:] == ["kind: quota", "name: red", "limits: {cpu: 8}"]
    assert invoke(scene, "queue", "show", "red").stdout == shown
    assert json.loads(invoke(scene, "policy", "get", "quota", "red", "--json").stdout)["document"] == {
        "limits": {"cpu": 8}
    }


def test_a_policy_is_deleted(scene: Scene) -> None:
    scene.manager(reply(204, b""))
    assert invoke(scene, "policy", "delete", "quota", "red").stdout == "quota/red deleted\n"
    assert json.loads(invoke(scene, "policy", "delete", "quota", "red", "--if-index", "4", "--json").stdout) == {
        "deleted": {"kind": "quota", "name": "red"}
    }
    assert [path for _, path, _, _ in scene.requests()] == [
        "/v1/policies/quota/red",
        "/v1/policies/quota/red?if_index=4",
    ]


def test_lists_are_tables(scene: Scene) -> None:
    document = {"namespace": "red", "each_user": True, "limits": {"cpu": 8}}
    scene.manager(page(view("quota", "red", document), view("queue", "default", {}, 0)))
    told = invoke(scene, "policy", "list").stdout.splitlines()
    assert told[1].startswith("quota  red      namespace: red, each_user: true, limits.cpu: 8  ada")
    assert told[2].split() == ["queue", "default", "built", "in"]
    assert invoke(scene, "queue", "list").stdout.splitlines()[2].split()[:4] == ["default", "open", "0", "1"]
    assert "red" in invoke(scene, "namespace", "list").stdout
    for command, key in (("queue", "queues"), ("namespace", "namespaces"), ("policy", "policies")):
        assert len(json.loads(invoke(scene, command, "list", "--json").stdout)[key]) == 2


def test_a_queue_is_closed_as_it_is_and_opened_again(scene: Scene) -> None:
    scene.manager(
        reply(200, view("queue", "batch", {"weight": 2})),
        reply(200, view("queue", "batch", {"weight": 2, "state": "closed"})),
    )
    assert invoke(scene, "queue", "close", "batch").stdout == "queue batch is closed\n"
    method, path, _, body = scene.requests()[1]
    assert (method, path, json.loads(body)) == (
        "PUT",
        "/v1/policies/queue/batch?if_index=7",
        {"weight": 2, "state": "closed"},
    )
    assert invoke(scene, "queue", "open", "batch").stdout == "queue batch is open\n"
    assert json.loads(scene.requests()[3][3])["state"] == "open"


def test_a_job_is_of_the_namespace_that_is_named_and_else_of_the_contexts(scene: Scene) -> None:
    scene.manager(reply(201, {"id": 7, "submission_id": "s", "duplicate": False, "log_index": 5}))
    context = {"HASCHED_NAMESPACE": "red"}
    invoke(scene, "job", "run", "--", "true")
    invoke(
        scene,
        "job",
        "run",
        "--tag",
        "night",
        "--semaphore",
        "door",
        "--semaphore",
        "licence=2",
        "--",
        "true",
        **context,
    )
    invoke(scene, "job", "run", "-n", "blue", "--", "true", **context)
    invoke(scene, "job", "submit", "-", text="command: [a]\n---\ncommand: [b]\nnamespace: blue\n", **context)
    sent = [json.loads(body) for _, _, _, body in scene.requests()]
    assert [each.get("namespace") for each in sent] == [None, "red", "blue", "red", "blue"]
    assert (sent[1]["tags"], sent[1]["semaphores"]) == (["night"], {"door": 1, "licence": 2})
    assert invoke(scene, "job", "run", "--semaphore", "door=x", "--", "true").exit_code == Exit.BAD_INPUT


def test_lists_are_of_the_contexts_namespace_too(scene: Scene) -> None:
    scene.manager(reply(200, {"jobs": [], "next_cursor": ""}))
    for options in ((), ("-n", "blue"), ("-A",)):
        invoke(scene, "job", "list", *options, HASCHED_NAMESPACE="red")
    assert [path.partition("&")[0] for _, path, _, _ in scene.requests()] == [
        "/v1/jobs?namespace=red",
        "/v1/jobs?namespace=blue",
        "/v1/jobs?limit=51",
    ]


LIMITS = {
    "limits": [
        {"kind": "quota", "name": "red", "of": "", "amount": "cpu", "used": 1500, "limit": 8000, "available": 6500},
        {"kind": "quota", "name": "red", "of": "", "amount": "memory", "used": 0, "limit": 2**30, "available": 2**30},
        {
            "kind": "quota",
            "name": "red",
            "of": "",
            "amount": "gpu_hours_per_week",
            "used": 9**7,
            "limit": 9**8,
            "available": 0,
        },
    ]
}


def test_a_quota_is_shown_with_its_use(scene: Scene) -> None:
    document = {"namespace": "red", "limits": {"cpu": 8}}
    scene.manager(
        page(view("quota", "red", document)),
        reply(200, LIMITS),
        reply(200, view("quota", "red", document)),
        reply(200, LIMITS),
    )
    listed = invoke(scene, "quota", "list").stdout.splitlines()[1]
    assert "cpu 1.5/8, memory 0/1Gi, gpu_hours_per_week 1.33/11.96" in listed
    shown = invoke(scene, "quota", "show", "red").stdout.splitlines()
    assert shown[-4].split() == ["AMOUNT", "USED", "LIMIT", "AVAILABLE"]
    assert shown[-3].split() == ["cpu", "1.5", "8", "6.5"]


USAGE = {
    "usage": [
        {
            "namespace": "red",
            "user": "ada",
            "attempts": 3,
            "cpu_core_ms": 5_400_000,
            "memory_gib_ms": 12_345,
            "gpu_ms": 90_000,
            "cpu_ms": 350,
            "cost_micro": 12_340_000,
            "running_tasks": 2,
        },
        {"namespace": "red", "user": "bob", "cost_micro": 1234},
    ],
    "currency": "EUR",
}


def test_usage_is_a_table_of_times_and_money(scene: Scene) -> None:
    scene.manager(reply(200, USAGE))
    lines = invoke(scene, "usage").stdout.splitlines()
    assert lines[0].split() == [
        *("NAMESPACE", "USER", "CPU", "MEMORY", "GPU", "DISK", "CPU", "USED", "RUNNING", "COST", "EUR"),
    ]
    assert lines[1].split() == ["red", "ada", "1.5h", "12.3s", "1.5m", "350ms", "2", "12.34"]
    assert lines[2].split() == ["red", "bob", "0.001234"]
    invoke(scene, "usage", "--by", "job", "--limit", "9", "--user", "ada", HASCHED_NAMESPACE="red")
    invoke(scene, "usage", "--by", "week", "-n", "blue", "--week", "2026-11-30")
    assert [path for _, path, _, _ in scene.requests()[1:]] == [
        "/v1/usage?by=job&namespace=red&user=ada&limit=9",
        "/v1/usage?by=week&namespace=blue&week=2026-11-30",
    ]
    assert json.loads(invoke(scene, "usage", "--json").stdout)["usage"][1]["cost_micro"] == 1234


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        ((1, None, None, True), "0.000001 EUR an hour; it has no timeout, so there is no upper bound"),
        ((1, 2_500_000, 2_500_000, True), "at most 2.50 EUR"),
        ((1, 0, 7_500_000, True), "at most 0 EUR, 7.50 EUR with all its retries"),
        ((0, 0, 0, False), "there is no price: `hasched policy apply` puts one"),
    ],
)
def test_an_estimate_is_a_sentence_and_submits_nothing(scene: Scene, estimate: tuple[Any, ...], said: str) -> None:
    names = ("hour_micro", "cost_micro", "most_micro", "priced")
    scene.manager(reply(200, {**dict(zip(names, estimate, strict=True)), "currency": "EUR"}))
    assert invoke(scene, "job", "run", "--estimate", "--", "true").stdout == f"{said}\n"
    assert (
        invoke(scene, "job", "submit", "-", "--estimate", text="command: [a]\n---\ncommand: [b]\n").stdout
        == f"{said}\n" * 2
    )
    assert len(json.loads(invoke(scene, "job", "run", "--estimate", "--json", "--", "x").stdout)["estimates"]) == 1
    assert [path for _, path, _, _ in scene.requests()] == ["/v1/usage/estimate"] * 4


async def test_both_clients_ask_alike(scene: Scene) -> None:
    estimate = {"hour_micro": 1, "cost_micro": 1, "most_micro": 1, "priced": True}
    answers = [page(), *[reply(200, view("queue", "q", {}))] * 2, reply(204, b"")]
    answers += [reply(200, USAGE), reply(200, LIMITS), reply(200, estimate)]
    first, second = scene.manager(*answers), scene.manager(*answers)
    assert first is not second
    with Client(scene.context(first.url)) as client:
        assert client.policies("queue").policies == []
        assert isinstance(client.policy("queue", "q"), PolicyView)
        client.put_policy("queue", "q", {}, if_index=0)
        client.delete_policy("queue", "q")
        assert len(client.usage("user", week="2026-11-30").usage) == 2
        assert len(client.limits("quota", "red").limits) == 3
        assert client.estimate({"command": ["true"]}).priced
    async with AsyncClient(scene.context(second.url)) as client:
        assert (await client.policies("queue")).policies == []
        assert isinstance(await client.policy("queue", "q"), PolicyView)
        await client.put_policy("queue", "q", {}, if_index=0)
        await client.delete_policy("queue", "q")
        assert len((await client.usage("user", week="2026-11-30")).usage) == 2
        assert len((await client.limits("quota", "red")).limits) == 3
        assert (await client.estimate({"command": ["true"]})).priced
    assert [each[:2] for each in first.requests] == [each[:2] for each in second.requests]
