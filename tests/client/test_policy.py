"""Whom a client asks next, and how long it waits."""

from __future__ import annotations

import pytest

from hasched.client.policy import LONGEST_PAUSE_S, NODE_PATIENCE_S, Endpoints, NotReached, Tries
from hasched.model.errors import (
    ClusterUnreachable,
    HaschedError,
    NodeUnreachable,
    NoLeader,
    NotFound,
    OutcomeUnknown,
    StorageFailed,
)

URLS = ["https://a:1", "https://b:1", "https://c:1"]


@pytest.mark.parametrize("error", [NoLeader("x"), StorageFailed("its disk is full")])
def test_a_round_is_made_without_a_pause(error: HaschedError) -> None:
    tries = Tries(Endpoints(URLS), 0, 60)
    asked = [tries.url]
    for _ in range(2):
        assert tries.failed(error, 0) == 0
        asked.append(tries.url)
    assert sorted(asked) == URLS
    assert tries.failed(error, 0) > 0


def test_pauses_grow_to_a_bound() -> None:
    tries = Tries(Endpoints(URLS[:1]), 0, 1000)
    pauses = [tries.failed(ConnectionError("x"), 0) for _ in range(20)]
    assert pauses[0] < 0.1
    assert all(LONGEST_PAUSE_S / 2 <= pause <= LONGEST_PAUSE_S for pause in pauses[-10:])


def test_the_end_names_everybody_and_why() -> None:
    tries = Tries(Endpoints(URLS), 0, 60)
    with pytest.raises(ClusterUnreachable) as raised:
        for number in range(10):
            tries.failed(ConnectionError(f"failure {number}"), number * 20)
    assert sum(url in str(raised.value) for url in URLS) == 3


def test_the_manager_that_answered_last_is_asked_first() -> None:
    endpoints = Endpoints(URLS)
    tries = Tries(endpoints, 0, 60)
    tries.failed(ConnectionError("x"), 0)
    assert Tries(endpoints, 0, 60).url == tries.url


def test_calls_that_fail_together_leave_a_manager_once() -> None:
    endpoints = Endpoints(URLS)
    together = [Tries(endpoints, 0, 60) for _ in range(len(URLS))]
    left = endpoints.current
    for tries in together:
        tries.failed(ConnectionError("x"), 0)
    assert {tries.url for tries in together} == {endpoints.current} != {left}


def test_an_idle_connection_that_was_closed_is_opened_anew_and_a_silent_one_is_left() -> None:
    endpoints = Endpoints(URLS)
    tries = Tries(endpoints, 0, 60)
    asked = tries.url
    assert tries.failed(ConnectionResetError("x"), 0, reused_connection=True) == 0
    assert tries.url == asked
    tries.failed(TimeoutError("x"), 0, reused_connection=True)
    assert tries.url != asked


def test_a_manager_that_lost_the_leader_is_asked_once_more_before_it_is_left() -> None:
    tries = Tries(Endpoints(URLS), 0, 60)
    asked = tries.url
    assert tries.failed(OutcomeUnknown("x"), 0) == 0
    assert tries.url == asked
    tries.failed(OutcomeUnknown("x"), 0)
    assert tries.url != asked


def test_a_connection_is_waited_for_longer_when_nobody_was_reached() -> None:
    tries = Tries(Endpoints(URLS), 0, 60)
    first = tries.connect_timeout_s
    for _ in URLS:
        assert tries.connect_timeout_s == first
        tries.failed(NotReached(TimeoutError("x")), 0)
    assert tries.connect_timeout_s > first


def test_a_node_is_given_time_to_find_a_new_leader() -> None:
    tries = Tries(Endpoints(URLS), 0, 60)
    tries.failed(NodeUnreachable("x"), 1)
    with pytest.raises(NodeUnreachable):
        tries.failed(NodeUnreachable("x"), NODE_PATIENCE_S)


def test_what_is_final_is_raised_at_once() -> None:
    with pytest.raises(NotFound):
        Tries(Endpoints(URLS), 0, 60).failed(NotFound("x"), 0)
