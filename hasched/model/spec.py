"""The job spec: what a user asks for, in canonical form (integers, no defaults left open).

`hasched.model.parse` turns a user's document into it. A `Struct(...)` call does not validate: whatever comes from outside
goes through `parse_spec`.
"""

from __future__ import annotations

import msgspec

from hasched.model.states import BackoffKind, OnDisconnect, RestartPolicy

MAX_TASKS = 1_000_000
MAX_INPUT_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 16 * 1024
MAX_JOB_OUTPUT_BYTES = 4 * 1024 * 1024  # of all tasks of a job together
MAX_SPEC_BYTES = 512 * 1024
MAX_PRIORITY = 1_000_000
DEFAULT_QUEUE = "default"
DEFAULT_NAMESPACE = "default"


class Resources(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An amount of each resource: what a task asks for, or what a node has."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    countables: tuple[tuple[str, int], ...] = ()  # (name, amount), sorted by name, amounts > 0


class Backoff(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How long a failed task waits before its next attempt. Retry n (from 1) waits at most `max_ms`."""

    kind: BackoffKind = BackoffKind.EXPONENTIAL
    initial_ms: int = 10_000
    max_ms: int = 300_000
    multiplier_milli: int = 2000  # thousandths: 2000 doubles the wait each time


class Retries(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Attempts after the first. A lost node is not the task's fault, so it draws on a budget of its own."""

    max: int = 0
    node_lost: int = 3
    backoff: Backoff = Backoff()


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to run. Exactly one of `command` (an argument vector) and `script` (run by its #! line or /bin/sh) is set."""

    name: str
    command: tuple[str, ...] = ()
    script: str = ""
    env: dict[str, str] = {}
    working_dir: str = ""  # empty: the attempt's own directory
    input: bytes = b""  # handed to every task as the file HASCHED_INPUT
    count: int = 1
    max_running: int = 0  # 0: no cap
    resources: Resources = Resources(cpu_milli=1000)
    timeout_ms: int = 0  # per attempt; 0: none
    kill_grace_ms: int = 5_000  # between TERM and KILL
    retries: Retries = Retries()
    restart: RestartPolicy = RestartPolicy.ON_FAILURE
    success_exit_codes: tuple[int, ...] = (0,)
    on_disconnect: OnDisconnect = OnDisconnect.RUN_ON
    labels: dict[str, str] = {}
    priority: int = 0  # larger starts first
    queue: str = DEFAULT_QUEUE
