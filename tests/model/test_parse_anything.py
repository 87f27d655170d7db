"""Whatever comes in as a job document is a spec or is refused in words."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hasched.model.errors import MalformedBody, SpecInvalid
from hasched.model.parse import JobDefaults, parse_spec
from hasched.model.spec import (
    JobSpec,
)
from hasched.statemachine.commands import SubmitJob
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules.jobs import decide_submit
from hasched.statemachine.state import State
from tests.model.documents import CLUSTER, problems_of

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,9}[A-Za-z0-9])?", fullmatch=True)
DURATIONS = st.integers(0, 3600) | st.sampled_from(["0s", "250ms", "1m", "1m30s", "0.5h", 0.25])
CPUS = st.integers(0, 4096) | st.sampled_from(["1", "0.5", "500m", 1.25])
SIZES = st.integers(0, 2**53 - 1) | st.sampled_from(["0", "512Mi", "4G", "1.5Ki"])
BUDGETS = st.integers(0, 1000)
BACKOFFS = st.fixed_dictionaries(
    {"max": st.just("1h")},
    optional={
        "kind": st.sampled_from(["linear", "exponential"]),
        "initial": DURATIONS,
        "multiplier": st.integers(1, 100) | st.just(1.5),
    },
)
OPTIONAL = {
    "name": NAMES,
    "env": st.dictionaries(NAMES, TEXT, max_size=3),
    "working_dir": TEXT.map("/".__add__),
    "input": TEXT | st.binary(max_size=9).map(lambda data: {"base64": base64.b64encode(data).decode()}),
    "count": st.integers(1, 1_000_000),
    "max_running": st.integers(1, 1_000_000),
    "min_count": st.just(1),
    "preemption": st.just({"signal": "USR2", "warning": "30s"}) | st.just({"warning": 5}),
    "resources": st.fixed_dictionaries(
        {},
        optional={
            "cpu": CPUS,
            "memory": SIZES,
            "gpus": st.integers(0, 2**53 - 1),
            "countables": st.dictionaries(st.sampled_from("abc"), st.integers(1, 2**53 - 1)),
        },
    ),
    "timeout": DURATIONS,
    "kill_grace": DURATIONS,
    "retries": BUDGETS
    | st.fixed_dictionaries({}, optional={"max": BUDGETS, "node_lost": BUDGETS, "backoff": BACKOFFS}),
    "restart": st.sampled_from(["never", "on_failure"]),
    "success_exit_codes": st.lists(st.integers(0, 255), min_size=1, max_size=3),
    "on_disconnect": st.sampled_from(["run_on", "stop"]),
    "labels": st.dictionaries(NAMES, TEXT, max_size=3),
    "priority_class": st.sampled_from(["low", "medium", "high"]),
    "queue": NAMES,
    "not_before": st.sampled_from(["5m", 60]),
    "deadline": st.sampled_from(["1h", 3600.5, "2026-12-24T18:00:01+00:00"]),
    "on_broken_dependency": st.sampled_from(["cancel", "wait"]),
    "namespace": NAMES,
    "tags": st.lists(NAMES, max_size=3),
    "semaphores": st.dictionaries(NAMES, st.integers(1, 9), max_size=3),
    "placement": st.fixed_dictionaries(
        {},
        optional={
            "pool": NAMES | st.just("*") | st.lists(NAMES, min_size=1, max_size=3),
            "constraints": st.sampled_from(["arch == amd64", ["has label.ssd", "not gpu.model in [T4]"]]),
            "affinity": st.just([{"nodes": "has label.ssd", "weight": 5}]),
            "anti_affinity": st.sampled_from([{"nodes": "node == n1"}, [{"nodes": "pool == spare", "weight": 5}]]),
            "tolerations": st.sampled_from(["*", ["gpu", "dedicated=ml"]]),
            "any_of": st.just([{"cpu": 2}, {"gpus": 1, "gpu_model": "A100"}]),
            "gpu_locality": st.sampled_from(["any", "same_numa", "nvlink"]),
        },
    ),
}
PROGRAMS = {"command": st.lists(TEXT.filter(bool), min_size=1, max_size=3), "script": TEXT.filter(bool)}
GOOD = st.one_of(*(st.fixed_dictionaries({key: values}, optional=OPTIONAL) for key, values in PROGRAMS.items()))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.just("\0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KEYS = {**PROGRAMS, **OPTIONAL}
BAD = st.fixed_dictionaries({}, optional={key: values | PLAIN for key, values in KEYS.items()})


def verdict_on(document: Any) -> JobSpec | list[tuple[str, str, str]]:
    try:
        return parse_spec(document)
    except SpecInvalid as invalid:
        assert invalid.errors
        msgspec.json.encode(invalid.extra)
        return [(error.path, error.cause, error.hint) for error in invalid.errors]


@given(st.binary(max_size=200) | PLAIN.map(lambda value: json.dumps(value).encode()))
@example(b'{"command":["a"],"input":{"base64":"\\u0000"}}')
def test_no_bytes_bring_anything_but_a_spec_or_a_refusal(document: bytes) -> None:
    try:
        verdict_on(document)
    except MalformedBody:
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)):
            msgspec.json.decode(document)


@given(st.dictionaries(st.sampled_from([*KEYS]) | st.text(max_size=3) | st.integers(), PLAIN | st.text(), max_size=4))
def test_no_values_bring_anything_but_a_spec_or_a_refusal(document: dict[Any, Any]) -> None:
    verdict_on(document)


@given(GOOD | BAD | PLAIN)
def test_json_and_plain_values_are_judged_alike(document: Any) -> None:
    assert verdict_on(json.dumps(document).encode()) == verdict_on(document)


@given(GOOD, st.sampled_from([JobDefaults(), CLUSTER]))
def test_good_documents_become_specs_that_the_state_machine_accepts(
    document: dict[str, Any], defaults: JobDefaults
) -> None:
    spec = parse_spec(document, defaults)
    command = SubmitJob(submission_id="s", actor="a", spec=spec)
    decision = decide_submit(State(), command)
    assert not isinstance(decision, Rejected) or decision.code.startswith("unknown_")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=JobSpec) == spec


@given(GOOD, st.sampled_from(sorted(KEYS)), st.sampled_from([None, True, "\0", [[]], {"no": None}]))
def test_one_bad_value_spoils_a_document_and_is_named(document: dict[str, Any], key: str, value: Any) -> None:
    problems = problems_of({**document, key: value})
    assert any(path.startswith(key) for path, _, _ in problems)
