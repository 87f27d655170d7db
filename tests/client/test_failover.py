"""What a client does when managers die, freeze, or can't say what happened. Both clients tell the same stories."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_manager import Scene, hang_up, reply, stream

from hasched.certs.issuing import create_ca
from hasched.client import aio, aio_wire, connection, policy, sync, vigil, wire
from hasched.client import calls as client_calls
from hasched.client.context import Context
from hasched.model import errors

ACCEPTED = reply(201, {"id": 7, "submission_id": "s", "duplicate": False, "log_index": 3})
EVENT = b'id: %d.0\ndata: {"id":"%d.0","log_index":%d,"time_ms":0,"type":"T"}\n\n'

Ask = Callable[..., Any]


def ask_sync(
    context: Context, method: str, *arguments: Any, timeout_s: float = 5, take: int = 0, **options: Any
) -> Any:
    with sync.Client(context, timeout_s=timeout_s) as client:
        answer = getattr(client, method)(*arguments, **options)
        if not isinstance(answer, Iterator):
            return answer
        return [next(answer) for _ in range(take)] if take else list(answer)


def ask_aio(context: Context, method: str, *arguments: Any, timeout_s: float = 5, take: int = 0, **options: Any) -> Any:
    async def run() -> Any:
        async with aio.AsyncClient(context, timeout_s=timeout_s) as client:
            answer = getattr(client, method)(*arguments, **options)
            if asyncio.iscoroutine(answer):
                return await answer
            taken = []
            async for each in answer:
                taken.append(each)
                if len(taken) == take:
                    break
            await answer.aclose()
            return taken

    return asyncio.run(run())


@pytest.fixture(params=[ask_sync, ask_aio], ids=["sync", "aio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.param


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(hang_up, id="the connection breaks after the request was read"),
        pytest.param(reply(503, "outcome_unknown"), id="the manager can't say"),
        pytest.param(reply(503, "no_leader"), id="nobody leads"),
        pytest.param(reply(503, "not_leader"), id="another leads"),
        pytest.param(reply(503, "overloaded"), id="the manager is busy"),
    ],
)
def test_a_submission_is_repeated_under_its_first_id(scene: Scene, ask: Ask, failure: Any) -> None:
    scene.manager(failure, failure, ACCEPTED)
    assert ask(scene.context(), "submit", {"command": ["true"]}).id == 7
    requests = scene.requests()
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in requests}) == 1
    assert len({body for *_, body in requests}) == 1
    assert all(headers["Authorization"] == "Bearer secret" for _, _, headers, _ in requests)


@pytest.mark.parametrize("code", ["invalid_spec", "unauthenticated", "malformed_body", "internal", "conflict"])
def test_an_answer_that_would_not_change_is_not_asked_for_again(scene: Scene, ask: Ask, code: str) -> None:
    kinds = {kind.code: kind for kind in (errors.SpecInvalid, errors.Unauthenticated, errors.MalformedBody)}
    kinds |= {"internal": errors.HaschedError, "conflict": errors.Conflict}
    scene.manager(reply(kinds[code].status, code))
    with pytest.raises(errors.HaschedError) as raised:
        ask(scene.context(), "submit", {"command": ["true"]})
    assert raised.value.status == kinds[code].status
    assert len(scene.requests()) == 1


def test_a_dead_manager_is_left_for_a_living_one(scene: Scene, ask: Ask, dead_url: str) -> None:
    living = scene.manager(ACCEPTED)
    assert ask(scene.context(dead_url, dead_url, living.url), "submit", {"command": ["true"]}).id == 7


def test_a_frozen_manager_costs_only_a_short_while(scene: Scene, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes its connections; nobody answers the handshake."""
    monkeypatch.setattr(policy, "CONNECT_TIMEOUTS_S", (0.2,))
    monkeypatch.setattr(client_calls, "ATTEMPT_TIMEOUT_S", 0.5)
    living = scene.manager(ACCEPTED)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        url = f"https://127.0.0.1:{frozen.getsockname()[1]}"
        assert ask(scene.context(url, url, living.url), "submit", {"command": ["true"]}).id == 7


def test_a_manager_that_freezes_with_a_request_is_left_for_a_living_one(
    scene: Scene, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the request, and answers no more, not even whether it lives. The call's own patience is much longer."""
    for module in (connection, vigil):
        monkeypatch.setattr(module, "QUIET_S", 0.05)
        monkeypatch.setattr(module, "LIFE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(client_calls, "ATTEMPT_TIMEOUT_S", 1000)
    monkeypatch.setattr(random, "randrange", lambda _: 0)
    over = threading.Event()

    def freeze(handler: Any) -> None:
        frozen.shutdown()
        over.wait(60)

    frozen = scene.manager(freeze)
    living = scene.manager(ACCEPTED)
    try:
        assert ask(scene.context(), "submit", {"command": ["true"]}, timeout_s=900).id == 7
    finally:
        over.set()
    assert len(living.requests) == 1


def test_a_manager_that_lives_is_waited_for(scene: Scene, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so when it is asked, as often as that happens before the answer comes."""
    for module in (connection, vigil):
        monkeypatch.setattr(module, "QUIET_S", 0.01)
    asked = threading.Event()
    lives: list[str] = []

    def answer(handler: Any) -> None:
        if handler.path == policy.LIFE_PATH:
            lives.append(handler.path)
            if len(lives) == 3:
                asked.set()
            reply(200, {"status": "alive", "manager": "m1"})(handler)
        else:
            assert asked.wait(60)
            ACCEPTED(handler)

    scene.manager(answer)
    assert ask(scene.context(), "submit", {"command": ["true"]}, timeout_s=900).id == 7


def test_nobody_there_says_who_was_asked(scene: Scene, ask: Ask, dead_url: str) -> None:
    with pytest.raises(errors.ClusterUnreachable, match=dead_url):
        ask(scene.context(dead_url), "cluster", timeout_s=0.2)


@pytest.mark.parametrize("last_word", ["silence", "refused"])
def test_a_submission_that_may_have_been_accepted_is_not_said_to_be_lost(
    scene: Scene, ask: Ask, dead_url: str, last_word: str
) -> None:
    """The manager takes it, and the time is over before it answers; those asked after it refuse."""
    over = threading.Event()
    silent = scene.manager(lambda handler: over.wait(10))
    urls = [silent.url] if last_word == "silence" else [silent.url, dead_url]
    try:
        with pytest.raises(errors.OutcomeUnknown, match="took the request and didn't answer in time") as raised:
            ask(scene.context(*urls), "submit", {"command": ["true"]}, "mine", timeout_s=0.4)
    finally:
        over.set()
    assert raised.value.extra["submission_id"] == "mine"
    assert "mine" in raised.value.hint
    assert "no manager answered" not in raised.value.cause


def test_a_batch_that_may_have_been_accepted_names_its_ids(scene: Scene, ask: Ask) -> None:
    scene.manager(hang_up)
    with pytest.raises(errors.OutcomeUnknown) as raised:
        ask(scene.context(), "submit_many", [("a", b"{}"), ("b", b"{}")], timeout_s=0.2)
    assert raised.value.extra["submission_ids"] == ["a", "b"]


def test_a_submission_that_nobody_took_was_not_accepted(scene: Scene, ask: Ask, dead_url: str) -> None:
    with pytest.raises(errors.ClusterUnreachable, match="no manager answered"):
        ask(scene.context(dead_url), "submit", {"command": ["true"]}, timeout_s=0.2)


def test_a_read_that_was_taken_and_not_answered_is_told_as_that(scene: Scene, ask: Ask) -> None:
    scene.manager(hang_up)
    with pytest.raises(errors.ClusterUnreachable, match="took the request") as raised:
        ask(scene.context(), "job", 1, timeout_s=0.2)
    assert "no manager answered" not in raised.value.cause


def test_one_manager_of_three_says_that_a_majority_is_missing(scene: Scene, ask: Ask, dead_url: str) -> None:
    alone = scene.manager(reply(503, "no_leader"))
    with pytest.raises(errors.NoLeader, match="1 of 3 managers reachable, no majority"):
        ask(scene.context(alone.url, dead_url, dead_url.replace("127.0.0.1", "localhost")), "job", 1, timeout_s=0.3)


def test_an_answer_that_stays_the_same_is_told_in_the_end(scene: Scene, ask: Ask) -> None:
    scene.manager(reply(503, "no_leader"))
    with pytest.raises(errors.NoLeader):
        ask(scene.context(), "job", 1, timeout_s=0.3)


def test_only_a_manager_of_the_cluster_is_believed(scene: Scene, ask: Ask, certificates: Any, tmp_path: Any) -> None:
    """Another CA signed its certificate, so neither the request nor the token reaches it."""
    create_ca(tmp_path, "other")
    manager = scene.manager(ACCEPTED)
    context = Context(managers=[manager.url], ca=str(tmp_path / "ca.crt"), token="secret")
    begun = time.monotonic()
    with pytest.raises(errors.ClusterNotTrusted, match="not of the cluster's CA"):
        ask(context, "submit", {"command": ["true"]}, timeout_s=20)
    assert time.monotonic() - begun < 5, "waiting doesn't help"
    assert scene.requests() == []


@pytest.mark.parametrize("failure", [reply(503, "outcome_unknown"), hang_up], ids=["unknown", "broken off"])
def test_a_delete_that_was_repeated_may_find_nothing_left(scene: Scene, ask: Ask, failure: Any) -> None:
    scene.manager(failure, reply(404, "no_such_job"))
    assert ask(scene.context(), "delete", 7) is None


def test_a_delete_of_nothing_is_an_error(scene: Scene, ask: Ask) -> None:
    scene.manager(reply(404, "no_such_job"))
    with pytest.raises(errors.NotFound):
        ask(scene.context(), "delete", 7)


def test_events_go_on_after_the_last_one_seen(scene: Scene, ask: Ask) -> None:
    def events(*numbers: int, whole: bool) -> Any:
        return stream(*(EVENT % (n, n, n) for n in numbers), whole=whole, Content_Type="text/event-stream")

    scene.manager(events(4, 5, whole=False), hang_up, events(6, whole=True), events(7, 8, whole=True))
    seen = ask(scene.context(), "events", after="3.0", take=5)
    assert [event.id for event in seen] == ["4.0", "5.0", "6.0", "7.0", "8.0"]
    assert [path for _, path, _, _ in scene.requests()] == [f"/v1/events?after={index}.0" for index in (3, 5, 5, 6)]


def test_events_that_are_gone_are_said_to_be(scene: Scene, ask: Ask) -> None:
    scene.manager(reply(410, "events_compacted"))
    with pytest.raises(errors.EventsCompacted):
        ask(scene.context(), "events", after="3.0", take=1)


def test_a_log_goes_on_where_it_broke_off(scene: Scene, ask: Ask) -> None:
    scene.manager(
        stream(b"abc", whole=False, Hasched_Log_Offset="10"),
        reply(503, "node_unreachable"),
        stream(b"def", Hasched_Log_Offset="13"),
    )
    assert b"".join(ask(scene.context(), "logs", 1, 0, tail=5)) == b"abcdef"
    assert [path.partition("&")[2] for _, path, _, _ in scene.requests()] == ["tail=5", "offset=13", "offset=13"]


def test_a_silent_task_is_followed_for_longer_than_a_call_may_take(
    scene: Scene, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    for module in (wire, aio_wire):
        monkeypatch.setattr(module, "STREAM_SILENCE_S", 0.2)
    silence = stream(Hasched_Log_Offset="0", whole=False, then=lambda: over.wait(10))
    scene.manager(silence, silence, silence, stream(b"at last", Hasched_Log_Offset="0"))
    try:
        assert b"".join(ask(scene.context(), "logs", 1, follow=True, timeout_s=0.3)) == b"at last"
    finally:
        over.set()
