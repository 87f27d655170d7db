"""Policies as documents: what is read can be written and read again, and every mistake has its place."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.errors import MalformedBody, PolicyInvalid
from hasched.model.policy import BUILT_IN, TYPES, PolicyKind, Queue, QueueState, Quota, Reservation, kind_of
from hasched.model.policy_tables import TABLES
from hasched.model.policy_text import name_of, parse_policy, policy_schema, write_policy
from hasched.model.units import format_micro, parse_micro

DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("namespace", {"description": "The red team."}),
    ("queue", {"priority": -3, "weight": 1.5, "max_running": 9, "state": "closed"}),
    ("priority_class", {"value": 7, "preempts": "lower"}),
    ("resource_class", {"resources": {"cpu": 0.5, "memory": "3Gi", "gpus": 1, "countables": {"licence": 2}}}),
    ("fair_share", {"enabled": False, "half_life": "3d", "weights": {"red": 1.5, "red/ada": 2}}),
    ("fair_share", {"charge": {"memory": 0.5, "gpu": 16}, "ageing": "10m"}),
    (
        "quota",
        {
            "namespace": "red",
            "user": "ada",
            "parent": "company",
            "scope": "workflow",
            "limits": {"cpu": 64, "memory": "4Gi", "gpus": 0, "countables": {"licence": 3}, "gpu_hours_per_week": 5},
            "borrow": {"cpu": 0.5, "running_tasks": 1, "running_jobs": 2},
            "lend": {"disk": "1Ti", "queued_tasks": 1, "queued_jobs": 2},
        },
    ),
    ("quota", {"namespace": "red", "each_user": True, "limits": {"queued_jobs": 1}}),
    ("quota", {"cohort": True}),
    ("cap", {"units": 4}),
    ("cap", {"units": 4, "subject": "tag", "match": "nightly", "namespace": "red"}),
    (
        "price",
        {"currency": "EUR", "cpu": "0.04", "memory": "0.005", "disk": "0.0001", "gpu": "2", "gpu_models": {"H": "2.5"}},
    ),
    (
        "reservation",
        {
            "nodes": ["n1", "n2"],
            "start": "2026-12-24T18:00:00Z",
            "end": "2026-12-26T06:30:00.500Z",
            "namespaces": ["red"],
            "users": ["ada"],
        },
    ),
    ("gpu_room", {"cpu": 8, "memory": "32Gi"}),
    ("gpu_room", {"enabled": False}),
    ("notification", {"to": "slack", "url_file": "chat.url", "description": "The room of those on call."}),
    (
        "notification",
        {
            "to": "webhook",
            "url": "https://hooks.example.com:8443/in?a=b",
            "secret_file": "hook.secret",
            "events": ["job.failed", "workflow.failed"],
            "namespaces": ["red"],
            "retry_after": "1s",
            "retry_at_most": "10m",
            "give_up_after": "2d",
        },
    ),
    ("notification", {"to": "email", "recipients": ["ada@example.com", "bob@example.com"]}),
]


@pytest.mark.parametrize(("kind", "document"), DOCUMENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_read_is_written_as_it_was(kind: str, document: dict[str, Any]) -> None:
    known, body = parse_policy(kind, "name", document)
    assert (known, kind_of(body)) == (kind, kind)
    assert write_policy(body) == document
    assert parse_policy(kind, "name", {"kind": kind, "name": "name", **write_policy(body)}) == (known, body)


def test_every_key_of_every_kind_is_in_these_documents_and_in_the_schema() -> None:
    shown = {(kind, key) for kind, document in DOCUMENTS for key in (*document, "description")}
    assert shown == {(kind.value, key) for kind, table in TABLES.items() for key in table}
    schemas = {schema["title"]: schema["properties"] for schema in policy_schema()["anyOf"]}
    assert {kind: sorted(properties) for kind, properties in schemas.items()} == {
        kind.value: sorted([*table, "kind", "name"]) for kind, table in TABLES.items()
    }


@pytest.mark.parametrize(
    ("kind", "document", "complaint"),
    [
        ("quote", {}, "kind: there is no kind 'quote'"),
        ("queue", [], "must be a mapping of the keys of a queue, not an empty list"),
        ("queue", {"wieght": 2}, "wieght: unknown key"),
        ("queue", {"name": "other"}, "name: must be name here, not 'other'"),
        ("queue", {"weight": -1}, "weight: must be a number from 0 to 1000000, not -1"),
        ("queue", {"state": "shut"}, "state: must be one of open, closed, not 'shut'"),
        ("priority_class", {}, "value: is missing"),
        ("fair_share", {"half_life": "10s"}, "half_life: must be from 1m to 366d"),
        ("fair_share", {"charge": {"gpus": 1}}, "charge.gpus: unknown key"),
        ("fair_share", {"enabled": 1}, "enabled: must be true or false, not 1"),
        ("fair_share", {"weights": {"a b": 1}}, "weights.a b: is not an account: write NAMESPACE or NAMESPACE/USER"),
        ("quota", {"limits": {"cpus": 3}}, "limits.cpus: unknown key"),
        ("quota", {"limits": {"gpu_hours_per_week": 0.5}}, "limits.gpu_hours_per_week: must be a whole number"),
        ("quota", {"borrow": {"cpu": 1}}, "borrow: means nothing without a `parent`"),
        ("quota", {"each_user": True, "user": "ada"}, "each_user: and `user` exclude each other"),
        ("quota", {"each_user": True, "parent": "x"}, "each_user: a quota of each user has no `parent`"),
        ("cap", {"units": 1, "match": "x"}, "match: means nothing for a semaphore"),
        ("price", {"cpu": "0.0000001"}, "cpu: '0.0000001' is finer than a millionth"),
        (
            "reservation",
            {"nodes": ["n1"], "start": "soon", "end": "2026-12-24T18:00:00Z"},
            "start: 'soon' is not a time",
        ),
        (
            "reservation",
            {"nodes": [], "start": "2026-12-24T18:00:00Z", "end": "2026-12-24T18:00:00Z"},
            "nodes: must name a node; end: must be later than `start`",
        ),
        ("reservation", {"nodes": "n1", "start": 5}, "nodes: must be a list of names, not 'n1'; start: must be a time"),
    ],
)
def test_a_mistake_has_its_place(kind: str, document: Any, complaint: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(kind, "name", document)
    assert complaint in caught.value.cause


def test_what_is_no_policy_at_all() -> None:
    with pytest.raises(MalformedBody):
        parse_policy("queue", "name", b"{")
    with pytest.raises(PolicyInvalid, match="'a b' is not a name"):
        parse_policy("queue", "a b", {})
    for document in ([], {"kind": "queue"}, {"kind": 3, "name": "x"}):
        with pytest.raises(PolicyInvalid):
            name_of(document)
    assert name_of({"kind": "queue", "name": "x"}) == ("queue", "x")


def test_json_is_read_as_well_as_plain_values() -> None:
    assert parse_policy("queue", "q", b'{"state": "closed"}') == (PolicyKind.QUEUE, Queue(state=QueueState.CLOSED))


def test_what_is_built_in_could_have_been_put() -> None:
    for name, body in BUILT_IN:
        assert parse_policy(kind_of(body), name, write_policy(body)) == (kind_of(body), body)
    assert len(TYPES) == len(PolicyKind)


def test_a_reservation_for_nobody_is_maintenance() -> None:
    assert Reservation(nodes=("n1",), start_ms=0, end_ms=1).maintenance
    assert not Reservation(nodes=("n1",), start_ms=0, end_ms=1, users=("ada",)).maintenance
    assert Quota() == Quota(description="")


def test_money_is_counted_in_millionths() -> None:
    assert parse_micro("0.04") == 40_000
    assert [format_micro(micro) for micro in (0, 40_000, 2_500_000, 3_000_000)] == ["0", "0.04", "2.5", "3"]
