"""Whatever is wrong with a request, it is answered with a problem of its own code, and the state stays as it was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import pytest
from api_server import Manager
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hasched.api.routing import Route
from hasched.api.table import ROUTES
from hasched.model.views import Problem

TRUE = {"command": ["true"]}
FIFTY_MB = 50 * 1024 * 1024


def manager_of(name: str, **fields: object) -> bytes:
    document = {"id": name, "api_url": "https://m2:7411", "raft_address": "m2:7412"}
    return msgspec.json.encode(document | fields)


async def problem(manager: Manager, method: str, path: str, body: bytes | None, **options: Any) -> Problem:
    before, contents = manager.digest, manager.contents
    answer = await manager.request(method, path, data=body, **options)
    assert answer.headers["Content-Type"] == "application/problem+json", answer.body[:300]
    assert manager.contents == contents
    if method == "GET" or not (
        answer.code.startswith("no_such_") or answer.status == 409
    ):  # that was for the state machine
        assert manager.digest == before
    shown = msgspec.json.decode(answer.body, type=Problem)
    assert shown.status == answer.status
    assert shown.type == f"urn:hasched:problem:{shown.code}"
    return shown


@pytest.mark.parametrize(
    ("document", "status", "code", "words"),
    [
        pytest.param(b'{"command": ["true"], "comand": 1}', 422, "invalid_spec", "comand", id="an unknown key"),
        pytest.param(b'{"command": ["true"], "resources": {"gpus": 3.5}}', 422, "invalid_spec", "gpus", id="3.5 GPUs"),
        pytest.param(
            b'{"command": ["true"], "resources": {"memory": -1}}', 422, "invalid_spec", "memory", id="-1 memory"
        ),
        pytest.param(b'{"command": ["true"', 400, "malformed_body", "JSON", id="malformed JSON"),
        pytest.param(b"\xff\xfe{}", 400, "malformed_body", "JSON", id="not UTF-8"),
        pytest.param(b"", 400, "malformed_body", "JSON", id="an empty body"),
        pytest.param(b"[]", 422, "invalid_spec", "", id="not a mapping"),
        pytest.param(b"[" * 100_000, 400, "malformed_body", "JSON", id="nested for ever"),
        pytest.param(b'{"command": ["a\\u0000b"]}', 422, "invalid_spec", "NUL", id="a NUL in an argument"),
        pytest.param(b'{"command": ["true"], "count": 1000001}', 422, "invalid_spec", "count", id="too many tasks"),
    ],
)
async def test_a_bad_job(manager: Manager, document: bytes, status: int, code: str, words: str) -> None:
    shown = await problem(manager, "POST", "/v1/jobs", document)
    assert (shown.status, shown.code) == (status, code)
    assert words in shown.cause


async def test_every_mistake_of_a_job_is_listed(manager: Manager) -> None:
    document = b'{"command": ["true"], "cuont": 3, "resources": {"gpus": 3.5, "memory": -1}}'
    shown = await problem(manager, "POST", "/v1/jobs", document)
    assert [error["path"] for error in shown.errors] == ["cuont", "resources.gpus", "resources.memory"]
    assert "count" in shown.errors[0]["hint"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"command: [true", id="malformed"),
        pytest.param(b"command: [x]\n---\ncommand: [y]\n", id="two documents"),
        pytest.param(b"!!python/object/apply:os.system [id]", id="a tag that would run code"),
        pytest.param(b"a: &a [x]\nb: [*a, *a]\n", id="anchors"),
        pytest.param(b"\xff", id="not UTF-8"),
    ],
)
async def test_bad_yaml(manager: Manager, text: bytes) -> None:
    shown = await problem(manager, "POST", "/v1/jobs", text, headers={"Content-Type": "application/yaml"})
    assert (shown.status, shown.code) == (400, "malformed_body")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/jobs?stat=RUNNING", None, 400, "bad_request"),
        ("GET", "/v1/jobs?limit=0", None, 400, "bad_request"),
        ("GET", "/v1/jobs?limit=many", None, 400, "bad_request"),
        ("GET", "/v1/jobs?limit=1&limit=2", None, 400, "bad_request"),
        ("GET", "/v1/jobs?state=DONE", None, 400, "bad_request"),
        ("GET", "/v1/jobs?label=x", None, 400, "bad_request"),
        ("GET", "/v1/jobs?label=a=1&label=a=2", None, 400, "bad_request"),
        ("GET", "/v1/jobs?cursor=x", None, 400, "bad_request"),
        ("GET", "/v1/jobs?consistency=eventual", None, 400, "bad_request"),
        ("GET", "/v1/jobs?name=%ff", None, 400, "bad_request"),
        ("GET", "/v1/managers?x=1", None, 400, "bad_request"),
        ("GET", "/v1/events?after=x", None, 400, "bad_request"),
        ("GET", "/v1/events?type=JobEndd", None, 400, "bad_request"),
        ("GET", "/v1/events?job=999", None, 404, "no_such_job"),
        ("GET", "/v1/events?job=999&after=1", None, 404, "no_such_job"),
        ("GET", "/jobs/status", None, 400, "bad_request"),
        ("GET", "/v1/jobs/999", None, 404, "no_such_job"),
        ("GET", "/v1/jobs/-1", None, 404, "not_found"),
        ("GET", "/v1/jobs/" + "9" * 400, None, 404, "not_found"),
        ("GET", "/v1/jobs/١", None, 404, "not_found"),
        ("GET", "/v1/jobs/1/tasks", None, 404, "no_such_job"),
        ("GET", "/v1/jobs/1/tasks/0/logs", None, 404, "no_such_job"),
        ("GET", "/v1/nodes/..%2f..%2fetc", None, 404, "no_such_node"),
        ("DELETE", "/v1/nodes/none", None, 404, "no_such_node"),
        ("DELETE", "/v1/jobs/1", None, 404, "no_such_job"),
        ("POST", "/v1/jobs/1/cancel", b"{}", 404, "no_such_job"),
        ("POST", "/v1/jobs/1/cancel", b'{"task": [1]}', 400, "bad_request"),
        ("POST", "/v1/jobs/1/cancel", b'{"tasks": [-1]}', 400, "bad_request"),
        ("POST", "/v1/jobs/1/cancel", b'{"tasks": [1000000]}', 400, "bad_request"),
        ("POST", "/v1/jobs/1/cancel", b'{"tasks": [%d]}' % 10**21, 400, "bad_request"),
        ("POST", "/v1/jobs/1/cancel", b"{", 400, "malformed_body"),
        ("POST", "/v1/jobs/1/suspend", None, 404, "no_such_job"),
        ("PATCH", "/v1/jobs/1", b'{"priority": 1}', 404, "no_such_job"),
        ("PATCH", "/v1/jobs/1", b"{", 400, "malformed_body"),
        ("PATCH", "/v1/jobs/1", b'{"deadline": null}', 422, "invalid_spec"),
        ("POST", "/v1/jobs/batch", b"{}", 400, "bad_request"),
        ("POST", "/v1/jobs/batch", b'{"jobs": []}', 400, "bad_request"),
        ("POST", "/v1/jobs/batch", b'{"jobs": [{"spec": ]}', 400, "malformed_body"),
        ("POST", "/v1/managers", b"{}", 400, "bad_request"),
        ("POST", "/v1/managers", b"{", 400, "malformed_body"),
        ("POST", "/v1/managers", manager_of("m2", x=1), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("m 2"), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("../m2"), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("m" * 200), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("m2", api_url="http://m2:7411"), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("m2", api_url="https://m2"), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("m2", raft_address="m2"), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("m2", raft_address=7412), 400, "bad_request"),
        ("POST", "/v1/managers", manager_of("m1"), 409, "manager_exists"),
        ("POST", "/v1/managers", manager_of("m2", api_url="https://127.0.0.1:1"), 409, "manager_address_taken"),
        ("DELETE", "/v1/managers/m1", None, 409, "last_manager"),
        ("DELETE", "/v1/managers/m2", None, 404, "no_such_manager"),
        ("DELETE", "/v1/managers/check", None, 404, "no_such_manager"),
        ("POST", "/v1/managers/m2/lead", None, 404, "no_such_manager"),
        ("POST", "/v1/managers/lead", None, 409, "transfer_failed"),
        ("PUT", "/v1/managers/check", None, 405, "method_not_allowed"),
        ("GET", "/v1/managers/m1", None, 405, "method_not_allowed"),
        ("PUT", "/v1/jobs", b"{}", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("GET", "/", None, 404, "not_found"),
        ("GET", "/v1/agent/stream", None, 403, "forbidden"),
    ],
)
async def test_a_bad_request(
    manager: Manager, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    shown = await problem(manager, method, path, body)
    assert (shown.status, shown.code) == (status, code)


async def test_a_wrong_method_is_told_the_right_ones(manager: Manager) -> None:
    for path, allow in (("/v1/jobs", "GET, HEAD, POST"), ("/v1/events", "GET"), ("/v1/jobs/1/cancel", "POST")):
        answer = await manager.request("PUT", path)
        assert (answer.status, answer.headers["Allow"]) == (405, allow)


async def test_a_head_is_what_a_get_says_without_its_body(manager: Manager) -> None:
    for path, token in (("/livez", None), ("/readyz", None), ("/v1/jobs", ""), ("/v1/openapi.json", "")):
        get = await manager.get(path, token=token)
        head = await manager.request("HEAD", path, token=token)
        assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(get.body)), b"")
    assert (await manager.request("HEAD", "/v1/jobs", token=None)).status == 401
    assert (await manager.request("HEAD", "/v1/events")).status == 405


async def test_answers_name_the_product_alone(manager: Manager) -> None:
    for path in ("/livez", "/nothing", "/v1/jobs"):
        assert (await manager.get(path)).headers["Server"] == "hasched"


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "schlüssel"])
async def test_a_bad_submission_id(manager: Manager, key: str) -> None:
    shown = await problem(manager, "POST", "/v1/jobs", b'{"command": ["true"]}', headers={"Idempotency-Key": key})
    assert shown.code == "bad_request"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_50_mb_is_refused_and_not_kept(manager: Manager, chunked: bool) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < FIFTY_MB:
            sent += 2**16
            yield b"x" * 2**16

    headers = {} if chunked else {"Content-Length": str(FIFTY_MB)}
    before = manager.digest
    try:
        answer = await manager.request("POST", "/v1/jobs", data=pieces(), headers=headers)
    except aiohttp.ClientConnectionError:
        pytest.fail("the answer must reach a client that is still sending")
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert manager.digest == before


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


async def test_no_document_is_an_internal_error(manager: Manager) -> None:
    """Every answer is a refusal with a reason, whatever stands where in a job."""
    loop = asyncio.get_running_loop()
    keys = st.sampled_from(["command", "script", "resources", "retries", "env", "input", "labels", "count", "x"])
    seen: list[tuple[bytes, int]] = []

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.dictionaries(keys, VALUES) | VALUES)
    def submit(value: Any) -> None:
        body = msgspec.json.encode(value)
        answer = asyncio.run_coroutine_threadsafe(manager.post("/v1/jobs", body), loop).result(10)
        seen.append((body, answer.status))
        assert answer.status in (201, 400, 422), answer.body

    await asyncio.to_thread(submit)
    assert len(manager.replica.state.jobs) == sum(status == 201 for _, status in seen)


async def test_no_path_or_query_is_an_internal_error(manager: Manager) -> None:
    loop = asyncio.get_running_loop()
    paths = sorted({path for route in ROUTES for path in (route.path, *route.aliases)} - {"/v1/events"})
    parts = st.text(st.characters(codec="utf-8"), max_size=20) | st.integers().map(str)
    names = st.sampled_from(
        ["state", "limit", "cursor", "label", "consistency", "after", "id", "offset", "follow", "x"]
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(paths), parts, st.sampled_from(["GET", "DELETE", "POST"]), st.dictionaries(names, parts))
    def ask(path: str, part: str, method: str, query: dict[str, str]) -> None:
        filled = re.sub(r"\{\w+\}", lambda _: quote(part, safe=""), path)
        url = f"{filled}?{urlencode(query)}" if query else filled
        answer = asyncio.run_coroutine_threadsafe(manager.request(method, url), loop).result(10)
        assert answer.status < 500, answer.body

    before = manager.contents
    await asyncio.to_thread(ask)
    assert manager.contents == before


def lenient_in(kind: msgspec.inspect.Type) -> list[str]:
    """The objects of a body's type in which a misspelt field would go unseen."""
    match kind:
        case msgspec.inspect.StructType():
            inner = [name for field in kind.fields for name in lenient_in(field.type)]
            return inner if kind.forbid_unknown_fields else [kind.cls.__name__, *inner]
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType() | msgspec.inspect.SetType():
            return lenient_in(kind.item_type)
        case msgspec.inspect.DictType():
            return lenient_in(kind.value_type)
        case msgspec.inspect.UnionType():
            return [name for each in kind.types for name in lenient_in(each)]
        case _:
            return []


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.body_type not in (None, bytes)],
    ids=lambda route: f"{route.method} {route.path}",
)
def test_no_body_takes_fields_that_it_does_not_know(route: Route) -> None:
    assert lenient_in(msgspec.inspect.type_info(route.body_type)) == []


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.body_type is bytes], ids=lambda route: f"{route.method} {route.path}"
)
async def test_no_document_takes_keys_that_it_does_not_know(manager: Manager, route: Route) -> None:
    kind = "job" if "templates" in route.path else "queue"
    path = route.path.format(job_id=1, kind=kind, name="x")
    answer = await problem(manager, route.method, path, b'{"mystery": 1}')
    assert answer.status == 422 and "mystery" in answer.detail
