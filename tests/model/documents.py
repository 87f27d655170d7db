"""Job documents in tests: what becomes of one, and what a cluster fills in."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.errors import SpecInvalid
from hasched.model.parse import JobDefaults, parse_spec
from hasched.model.spec import Backoff, JobSpec, Resources, Retries
from hasched.model.states import BackoffKind

CLUSTER = JobDefaults(
    timeout_ms=60_000,
    retries=Retries(max=1, node_lost=7, backoff=Backoff(BackoffKind.LINEAR, 5_000, 20_000)),
    resources=Resources(cpu_milli=500, memory_bytes=2**30),
)


def parse(**document: Any) -> JobSpec:
    return parse_spec({"command": ["true"], **document})


def problems_of(document: Any, defaults: JobDefaults | None = None) -> list[tuple[str, str, str]]:
    with pytest.raises(SpecInvalid) as caught:
        parse_spec(document, defaults)
    return [(error.path, error.cause, error.hint) for error in caught.value.errors]


def problem_of(**document: Any) -> tuple[str, str, str]:
    (problem,) = problems_of({"command": ["true"], **document})
    return problem
