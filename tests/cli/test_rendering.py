"""What people see: tables that fit a terminal of 80 columns, and all that a job asks for."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import time

import pytest
from msgspec.structs import replace

from hasched.cli.managers import MANAGER_COLUMNS, MANAGER_SPARE, manager_row
from hasched.cli.nodes import NODE_COLUMNS, NODE_SPARE, node_row
from hasched.cli.output import clock, origin, print_table, printable, wait
from hasched.cli.placement_words import placement_fields
from hasched.cli.rendering import JOB_COLUMNS, JOB_SPARE, job_row, print_job, print_task
from hasched.model.parse import parse_spec
from hasched.model.spec import Backoff, JobSpec, Resources, Retries
from hasched.model.views import (
    AttemptView,
    EstimateView,
    JobView,
    ManagerView,
    NodeReservationView,
    NodeView,
    Reason,
    TaskView,
    UsageRow,
)

NOW_MS = int(time.time() * 1000)
SPEC = JobSpec(
    name="train",
    script="#!/bin/sh\n" + "".join(f"step {number}\n" for number in range(20)),
    env={"LANG": "C", "NOTE": "two\nlines \x1b[2J"},
    working_dir="/srv/train",
    max_running=4,
    timeout_ms=90_000,
    kill_grace_ms=30_000,
    retries=Retries(max=2, backoff=Backoff(initial_ms=1000)),
)
JOB = JobView(
    id=1234567,
    name="nightly-training-of-a-model-with-a-long-name",
    state="RUNNING",
    suspended=True,
    queue="default",
    priority=0,
    actor="alice.the.engineer",
    submission_id="s",
    count=1000,
    tasks={"PENDING": 700, "RUNNING": 100, "OUT_OF_MEMORY": 200},
    submitted_ms=NOW_MS,
    spec=SPEC,
)
ATTEMPT = AttemptView(
    attempt=1, state="OUT_OF_MEMORY", node_id="worker-17.example", signal=9, started_ms=NOW_MS - 5000, ended_ms=NOW_MS
)
TASK = TaskView(job_id=1234567, task_index=3, state="OUT_OF_MEMORY", attempt=1, attempts=[ATTEMPT])
NODE = NodeView(
    id="worker-17.example",
    state="disconnected",
    reason=None,
    hostname="h",
    agent_version="0.1.0.dev1",
    isolation="cgroup",
    labels={"rack": "r12", "zone": "europe-west"},
    total=Resources(cpu_milli=64_000, memory_bytes=2**38, gpus=8),
    allocated=Resources(cpu_milli=3500, memory_bytes=2**33),
    gpus=[],
    running=12,
    connected=False,
    registered_ms=0,
    changed_ms=0,
    log_index=0,
)
MANAGER = ManagerView(
    id="m1",
    api_url="https://manager-1.example.org:7411",
    raft_address="manager-1.example.org:7412",
    role="leader",
    term=12,
    last_index=123_456_789,
    commit_index=123_456_789,
    applied_index=123_456_789,
    version="0.1.0",
    reachable=True,
)


@pytest.fixture
def terminal(monkeypatch):
    """What `show` writes to a terminal of 80 columns, line by line."""

    def seen(show) -> list[str]:
        read_end, write_end = pty.openpty()
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr("rich._console", None)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("LINES", "24")
        with os.fdopen(write_end, "w") as file, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", file)
            show()
        written = b""
        with os.fdopen(read_end, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # EIO is a pty's end.
            while chunk := screen.read(4096):
                written += chunk
        monkeypatch.setattr("rich._console", None)
        return written.decode().splitlines()

    return seen


@pytest.mark.parametrize(
    ("show", "kept"),
    [
        pytest.param(
            lambda: print_table(JOB_COLUMNS, [job_row(JOB)], JOB_SPARE),
            ["1234567", "RUNNING (suspended)"],
            id="job list",
        ),
        pytest.param(
            lambda: print_task(TASK), ["OUT_OF_MEMORY", "worker-17.example", "signal 9", "5.0s"], id="job show"
        ),
        pytest.param(
            lambda: print_table(NODE_COLUMNS, [node_row(NODE)], NODE_SPARE),
            ["worker-17.example", "disconnected"],
            id="node list",
        ),
        pytest.param(
            lambda: print_table(MANAGER_COLUMNS, [manager_row(MANAGER)], MANAGER_SPARE),
            ["m1", "leader", "123456789", "https://manager-1.example.org:7411"],
            id="manager list",
        ),
    ],
)
def test_a_table_fits_80_columns_and_wraps_neither_ids_nor_states(terminal, show, kept):
    lines = terminal(show)
    assert max(map(len, lines)) <= 80
    assert [cell for cell in kept if not any(cell in line for line in lines)] == []


def test_a_terminal_is_not_shown_empty_columns_but_a_pipe_is(terminal, capsys):
    def show() -> None:
        print_table(("a", "b", "c"), [("1", "", "3"), ("4", "", "6")])

    assert next(line.split() for line in terminal(show) if line.strip()) == ["a", "c"]
    show()
    assert capsys.readouterr().out.splitlines()[0].split() == ["A", "B", "C"]


def test_a_node_that_a_reservation_has_now_says_so():
    window = NodeReservationView(name="works", start_ms=1000, end_ms=2000, namespaces=[], users=[], begun=True)
    assert node_row(replace(NODE, reservations=[window]))[1] == "disconnected,reserved"
    assert node_row(replace(NODE, reservations=[replace(window, begun=False)]))[1] == "disconnected"


def test_a_manager_that_does_not_answer_has_no_term():
    silent = ManagerView(**{name: getattr(MANAGER, name) for name in MANAGER.__struct_fields__} | {"reachable": False})
    assert manager_row(silent)[1:5] == ("unreachable", "yes", "", "")


def test_a_time_has_its_date_only_on_another_day():
    noon = int(time.mktime((2026, 6, 24, 12, 30, 5, 0, 0, -1)) * 1000)
    assert clock(noon, noon + 1000) == "12:30:05"
    assert clock(noon, noon + 86_400_000) == "2026-06-24 12:30:05"
    assert clock(0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (179, "2m59s"),
        (180, "3m"),
        (2150, "35m"),
        (10_799, "2h59m"),
        (7205, "2h"),
        (100_800, "1d4h"),
    ],
)
def test_a_wait_is_told_to_a_tenth(seconds: int, text: str):
    assert wait(seconds * 1000) == text


def test_what_a_job_asks_for_is_shown(capsys):
    print_job(JOB, None)
    shown = capsys.readouterr().out
    for line in (
        "script          #!/bin/sh",
        "                ... and 11 more",
        "working dir     /srv/train",
        "env             LANG=C",
        "max running     4",
        "timeout         1m30s",
        "kill grace      30s",
        "backoff         1s, then 2 times as long each time, 5m at most",
    ):
        assert f"{line}\n" in shown
    assert "success codes" not in shown


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("RUNNING", "cost 0.30 EUR so far; at most 5.00 EUR"),
        ("SUCCEEDED", "cost 0.30 EUR"),
    ],
)
def test_a_job_shows_what_it_has_used_and_what_that_cost(state: str, line: str, capsys: pytest.CaptureFixture[str]):
    used = UsageRow(cpu_core_ms=150_000, gpu_ms=2000, cost_micro=300_000)
    most = EstimateView(hour_micro=1, cost_micro=5_000_000, most_micro=5_000_000, priced=True, currency="EUR")
    print_job(replace(JOB, state=state, used=used, estimate=most), None)
    shown = [" ".join(each.split()) for each in capsys.readouterr().out.splitlines()]
    assert line in shown and "used 2.5m CPU, 2.0s GPU" in shown


# Of a job's document, by the field of `JobSpec`: one that isn't as everywhere, and the line that says so.
SAID = {
    "args": ({"script": "#!/bin/sh", "args": ["a b"]}, "args 'a b'"),
    "resources": ({"resources": {"cpu": 2}}, "each task asks 2 CPU"),
    "groups": ({"groups": [{"name": "w", "count": 2, "resources": {"cpu": 4}}]}, "groups w: 2 tasks with 4 CPU"),
    "gang": ({"gang": True, "count": 3}, "start all its tasks together"),
    "min_count": ({"gang": True, "count": 3, "min_count": 2}, "start together, 2 to 3 tasks"),
    "placement": ({"placement": {"pool": "sim"}}, "pool sim"),
    "semaphores": ({"semaphores": {"licence": 2}}, "semaphores 2 of licence"),
    "tags": ({"tags": ["nightly", "big"]}, "tags big, nightly"),
    "dependency": ({"dependency": "afterok:1"}, "dependency afterok:1"),
    "on_broken_dependency": ({"dependency": "afterok:1", "on_broken_dependency": "wait"}, "if it breaks waits"),
    "preemption": ({"preemption": {"signal": "USR1", "warning": "30s"}}, "preemption USR1, 30s before TERM"),
    "notify": ({"notify": {"targets": ["ops"], "events": ["job.failed"]}}, "notifies ops of job.failed"),
    "labels": ({"labels": {"a": "b"}}, "labels a=b"),
    "restart": ({"restart": "never"}, "restart never"),
    "on_disconnect": ({"on_disconnect": "stop"}, "on disconnect stop"),
    "success_exit_codes": ({"success_exit_codes": [0, 3]}, "success codes 0, 3"),
    "input": ({"input": "abcd"}, "input 4"),
    "command": ({"command": ["cat", "a b"]}, "command cat 'a b'"),
}
SHOWN_WITH_SCRIPT = {"script", "working_dir", "env", "max_running", "timeout_ms", "kill_grace_ms", "retries"}
OF_THE_JOB_ITSELF = {"name", "count", "namespace", "queue", "priority", "priority_class"}
TIMES = {"not_before_ms", "not_before_after_ms", "deadline_ms", "deadline_after_ms"}


@pytest.mark.parametrize("field", SAID)
def test_whatever_is_not_as_everywhere_is_shown(field: str, capsys: pytest.CaptureFixture[str]) -> None:
    document, line = SAID[field]
    spec = parse_spec(({} if {"script", "command"} & document.keys() else {"command": ["true"]}) | document)
    print_job(replace(JOB, spec=spec), None)
    assert line in [" ".join(each.split()) for each in capsys.readouterr().out.splitlines()]


def test_no_field_of_a_job_is_forgotten() -> None:
    assert {*SAID} | SHOWN_WITH_SCRIPT | OF_THE_JOB_ITSELF | TIMES == {*JobSpec.__struct_fields__}


def test_why_an_attempt_ended_is_told_where_the_task_says_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    gone, now = Reason(code="device_lost", text="a GPU is gone"), Reason(code="unsatisfiable", text="none is left")
    attempts = [replace(ATTEMPT, reason=gone), replace(ATTEMPT, attempt=2, reason=now)]
    print_task(replace(TASK, reason=now, attempts=attempts))
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("attempt")] == [
        "attempt 1: a GPU is gone (device_lost)"
    ]


def test_what_others_wrote_can_not_steer_the_terminal(capsys):
    assert printable("a\x1b[2J\tb") == "a\\x1b[2J    b"
    print_job(JOB, None)
    assert "\x1b" not in capsys.readouterr().out


def test_where_a_job_may_run_is_shown():
    document = {
        "command": ["true"],
        "placement": {
            "pool": ["a", "b"],
            "constraints": ["arch==amd64", "has label.ssd"],
            "affinity": [{"nodes": "has label.fast", "weight": 5}, {"jobs": {"name": "db", "labels": {"app": "x"}}}],
            "anti_affinity": {"jobs": "self", "within": "rack", "weight": 7},
            "spread": ["zone", {"max_skew": 2, "weight": 3}],
            "tolerations": ["gpu", "dedicated=ml"],
            "any_of": [{"cpu": 4}, {"cpu": 2, "gpus": 1, "gpu_model": ["A100", "H100"], "gpu_memory": "40Gi"}],
            "gpu_locality": "nvlink",
        },
    }
    assert [(name, text) for name, text in placement_fields(parse_spec(document).placement) if text] == [
        ("alternatives", "2 CPU, 1 GPU (A100 or H100, 40Gi)"),
        ("pool", "a, b"),
        ("constraints", "arch == amd64\nhas label.ssd"),
        ("better nodes", "has label.fast (+5)"),
        ("near", "name=db app=x within a node"),
        ("apart from", "itself within rack (+7)"),
        ("spread", "over zone, skew 1\nover nodes, skew 2 (+3)"),
        ("tolerates", "gpu, dedicated=ml"),
        ("GPU locality", "nvlink"),
    ]
    assert not any(text for _, text in placement_fields(parse_spec({"command": ["true"]}).placement))


def test_attempts_that_are_not_kept_leave_a_line_where_they_stood(capsys: pytest.CaptureFixture[str]) -> None:
    kept = [replace(ATTEMPT, attempt=number) for number in (1, 2, 40)]
    print_task(replace(TASK, attempt=40, attempts=kept, attempts_dropped=37))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:4] for row in rows if row][-2] == ["…", "37", "more", "attempts"]


@pytest.mark.parametrize(
    ("parent", "said"),
    [
        ("schedule/tick@1798135200000", "schedule tick, slot 2026-12-24T18:00:00Z"),
        ("execution/7/fetch[2]", "execution 7, task fetch[2]"),
        ("", ""),
    ],
)
def test_who_has_made_a_job_is_said_in_words(parent: str, said: str):
    assert origin(parent) == said
