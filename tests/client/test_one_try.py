"""A client without retries says of each try what came of it, and never that nothing was done where that isn't sure."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from scripted_manager import Handler, Scene, hang_up, reply

from hasched.certs.issuing import create_ca
from hasched.client import calls as client_calls
from hasched.client.aio import AsyncClient
from hasched.client.context import Context
from hasched.model import errors

T = TypeVar("T")
JOB = {"command": ["true"]}
ACCEPTED = reply(201, {"id": 7, "submission_id": "s", "duplicate": False, "log_index": 3})


def ask(context: Context, calls: Callable[[AsyncClient], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        async with AsyncClient(context, retries=False, **options) as client:
            return await calls(client)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(hang_up, errors.OutcomeUnknown, id="the connection breaks after the request was read"),
        pytest.param(reply(503, "outcome_unknown"), errors.OutcomeUnknown, id="the manager can't say"),
        pytest.param(reply(500, "internal"), errors.OutcomeUnknown, id="the manager fails, before or after the change"),
        pytest.param(reply(502, b"<html>"), errors.OutcomeUnknown, id="an answer of nobody we know"),
        pytest.param(reply(201, b"{"), errors.OutcomeUnknown, id="a success that can't be read"),
        pytest.param(reply(503, "no_leader"), errors.NoLeader, id="nobody leads"),
        pytest.param(reply(503, "not_leader"), errors.NotLeader, id="another leads"),
        pytest.param(reply(503, "overloaded"), errors.Overloaded, id="the manager is busy"),
        pytest.param(reply(507, "storage_failed"), errors.StorageFailed, id="its disk is full"),
        pytest.param(reply(409, "wrong_state"), errors.Conflict, id="the cluster refuses it"),
        pytest.param(reply(422, "invalid_spec"), errors.SpecInvalid, id="it is wrong"),
        pytest.param(reply(401, "unauthenticated"), errors.Unauthenticated, id="the token is wrong"),
    ],
)
def test_a_change_is_tried_once_and_its_failure_says_whether_it_may_have_happened(
    scene: Scene, answer: Any, kind: type[errors.HaschedError]
) -> None:
    scene.manager(answer, ACCEPTED)
    with pytest.raises(errors.HaschedError) as raised:
        ask(scene.context(), lambda client: client.submit(JOB, "mine"))
    assert isinstance(raised.value, kind)
    assert raised.value.status == kind.status
    assert len(scene.requests()) == 1
    if kind is errors.OutcomeUnknown:
        assert raised.value.extra["submission_id"] == "mine"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(hang_up, errors.ClusterUnreachable, id="the connection breaks"),
        pytest.param(reply(500, "internal"), errors.HaschedError, id="the manager fails"),
        pytest.param(reply(503, "no_leader"), errors.NoLeader, id="nobody leads"),
        pytest.param(reply(404, "no_such_job"), errors.NotFound, id="there is none"),
    ],
)
def test_a_read_is_tried_once_and_changes_nothing(scene: Scene, answer: Any, kind: type[errors.HaschedError]) -> None:
    scene.manager(answer)
    with pytest.raises(errors.HaschedError) as raised:
        ask(scene.context(), lambda client: client.job(1))
    assert isinstance(raised.value, kind)
    assert raised.value.status == kind.status
    assert len(scene.requests()) == 1


def test_a_manager_that_was_not_reached_did_nothing_and_the_next_call_asks_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "randrange", lambda _: 0)
    living = scene.manager(ACCEPTED)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead_url = f"https://127.0.0.1:{taken.getsockname()[1]}"

        async def twice(client: AsyncClient) -> int:
            with pytest.raises(errors.ClusterUnreachable):
                await client.submit(JOB)
            assert living.requests == []
            return (await client.submit(JOB)).id

        assert ask(scene.context(dead_url, living.url), twice) == 7


def test_a_delete_is_not_sent_again_behind_the_callers_back(scene: Scene) -> None:
    """A second one would find nothing, and be told of as one that changed nothing."""
    scene.manager(reply(404, "no_such_job"), hang_up, reply(404, "no_such_job"))

    async def on_a_connection_that_was_used(client: AsyncClient) -> None:
        with pytest.raises(errors.NotFound):
            await client.delete(1)
        with pytest.raises(errors.OutcomeUnknown):
            await client.delete(2)

    ask(scene.context(), on_a_connection_that_was_used)
    assert [path for _, path, *_ in scene.requests()] == ["/v1/jobs/1", "/v1/jobs/2"]


def test_a_change_that_is_not_answered_in_time_may_have_happened(scene: Scene) -> None:
    over = threading.Event()
    scene.manager(lambda _: over.wait(60))
    try:
        with pytest.raises(errors.OutcomeUnknown):
            ask(scene.context(), lambda client: client.submit(JOB), timeout_s=0.2)
    finally:
        over.set()


def test_a_change_that_never_had_a_connection_did_not_happen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the client's connections wait for answers, so its request is not sent before its time is over."""
    over, taken = threading.Event(), threading.Event()

    def keep(handler: Handler) -> None:
        taken.set()
        over.wait(60)
        ACCEPTED(handler)

    scene.manager(keep, ACCEPTED)

    async def crowd(client: AsyncClient) -> None:
        first = asyncio.create_task(client.submit(JOB))
        await asyncio.to_thread(taken.wait, 60)
        monkeypatch.setattr(client_calls, "ATTEMPT_TIMEOUT_S", 0.2)
        with pytest.raises(errors.ClusterUnreachable):
            await client.submit(JOB)
        over.set()
        assert (await first).id == 7

    try:
        ask(scene.context(), crowd, connections=1)
    finally:
        over.set()
    posts = [method for method, *_ in scene.requests() if method == "POST"]
    assert len(posts) == 1


def test_a_manager_of_another_cluster_did_nothing(scene: Scene, tmp_path: Path) -> None:
    create_ca(tmp_path, "other")
    manager = scene.manager(ACCEPTED)
    context = Context(managers=[manager.url], ca=str(tmp_path / "ca.crt"), token="secret")
    with pytest.raises(errors.ClusterNotTrusted):
        ask(context, lambda client: client.submit(JOB))
    assert scene.requests() == []
