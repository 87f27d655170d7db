"""Job documents: what is accepted and what it means, and how every mistake is named."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hasched.model.errors import MalformedBody
from hasched.model.kinds import MAX_PROBLEMS
from hasched.model.notices import NotifyRule
from hasched.model.parse import parse_spec, spec_schema
from hasched.model.spec import (
    MAX_INPUT_BYTES,
    MAX_SPEC_BYTES,
    Backoff,
    Condition,
    Dependency,
    JobSpec,
    PlacementRules,
    Preemption,
    Resources,
    Retries,
    TaskGroup,
)
from hasched.model.states import (
    BackoffKind,
    ConditionKind,
    OnBrokenDependency,
    OnDisconnect,
    RestartPolicy,
    WarningSignal,
)
from hasched.model.yaml_text import read_documents
from tests.model.documents import CLUSTER, parse, problem_of, problems_of

HUGE = 10**5000  # too long for Python to write out
PAGE = (Path(__file__).parent.parent.parent / "docs" / "jobs.md").read_text()


def test_a_command_is_enough() -> None:
    assert parse_spec(b'{"command": ["/bin/true"]}') == JobSpec(name="true", command=("/bin/true",))


def test_every_key_has_its_place_in_the_spec() -> None:
    document = {
        "name": "train-1.0_b",
        "script": "#!/usr/bin/python3\nprint('ü')\n",
        "args": ["--epochs", "20", ""],
        "env": {"MODE": "fast", "EMPTY": ""},
        "working_dir": "/srv/models",
        "input": "hello\n",
        "count": 8,
        "max_running": 4,
        "min_count": 2,
        "notify": {"targets": ["ops", "chat", "ops"], "events": ["job.failed"]},
        "resources": {"cpu": 1.5, "memory": "2Gi", "gpus": 1, "countables": {"seat": 2, "licence": 1}},
        "timeout": "1h30m",
        "kill_grace": "250ms",
        "retries": {
            "max": 2,
            "node_lost": 5,
            "backoff": {"kind": "linear", "initial": "1s", "max": 60, "multiplier": 1.5},
        },
        "restart": "never",
        "success_exit_codes": [3, 0, 3],
        "preemption": {"signal": "USR1", "warning": "1m"},
        "on_disconnect": "stop",
        "labels": {"team": "vision"},
        "priority_class": "high",
        "queue": "gpu",
        "not_before": "2h",
        "deadline": "2026-12-24T18:00:00Z",
        "dependency": "afterok:12:13,after:14+10m",
        "on_broken_dependency": "wait",
        "namespace": "vision",
        "tags": ["night", "etl", "night"],
        "semaphores": {"licence": 2, "door": 1},
        "placement": {"pool": "batch", "constraints": "kernel>=5.15"},
    }
    assert document.keys() | {"command", "priority", "gang", "groups"} == spec_schema()["properties"].keys()
    assert parse_spec(document) == JobSpec(
        name="train-1.0_b",
        script="#!/usr/bin/python3\nprint('ü')\n",
        args=("--epochs", "20", ""),
        env={"MODE": "fast", "EMPTY": ""},
        working_dir="/srv/models",
        input=b"hello\n",
        count=8,
        max_running=4,
        min_count=2,
        notify=NotifyRule(("chat", "ops"), ("job.failed",)),
        resources=Resources(1500, 2 * 2**30, 1, (("licence", 1), ("seat", 2))),
        timeout_ms=5_400_000,
        kill_grace_ms=250,
        retries=Retries(2, 5, Backoff(BackoffKind.LINEAR, 1000, 60_000, 1500)),
        restart=RestartPolicy.NEVER,
        success_exit_codes=(0, 3),
        preemption=Preemption(WarningSignal.USR1, 60_000),
        on_disconnect=OnDisconnect.STOP,
        labels={"team": "vision"},
        priority_class="high",
        queue="gpu",
        not_before_after_ms=7_200_000,
        deadline_ms=1_798_135_200_000,
        dependency=Dependency(
            (
                Condition(ConditionKind.AFTEROK, 12),
                Condition(ConditionKind.AFTEROK, 13),
                Condition(ConditionKind.AFTER, 14, 600_000),
            )
        ),
        on_broken_dependency=OnBrokenDependency.WAIT,
        namespace="vision",
        tags=("etl", "night"),
        semaphores=(("door", 1), ("licence", 2)),
        placement=PlacementRules(pools=("batch",), constraints=("kernel >= 5.15",)),
    )


@pytest.mark.parametrize(
    ("document", "name"),
    [
        pytest.param({"command": ["/usr/bin/python3", "x.py"]}, "python3", id="the program's"),
        pytest.param({"command": ["["]}, "job", id="a program whose name is no name"),
        pytest.param({"command": ["bin/"]}, "job", id="no program's name"),
        pytest.param({"script": "true"}, "job", id="a script's"),
        pytest.param({"command": ["true"], "name": "mine"}, "mine", id="its own"),
    ],
)
def test_a_job_has_a_name(document: dict[str, Any], name: str) -> None:
    assert parse_spec(document).name == name


@pytest.mark.parametrize(
    ("written", "means"),
    [
        pytest.param("text", b"text", id="text"),
        pytest.param("größe", "größe".encode(), id="text in UTF-8"),
        pytest.param({"base64": base64.b64encode(b"\0\xff").decode()}, b"\0\xff", id="bytes"),
        pytest.param({"base64": "aGVs\n  bG8=\n"}, b"hello", id="base64 over several lines"),
        pytest.param("", b"", id="nothing"),
        pytest.param("x" * MAX_INPUT_BYTES, b"x" * MAX_INPUT_BYTES, id="the largest"),
    ],
)
def test_an_input_is_text_or_bytes(written: Any, means: bytes) -> None:
    assert parse(input=written).input == means


def test_the_cluster_fills_what_a_job_leaves_open() -> None:
    spec = parse_spec({"command": ["true"]}, CLUSTER)
    assert (spec.timeout_ms, spec.retries, spec.resources) == (60_000, CLUSTER.retries, CLUSTER.resources)


def test_the_cluster_fills_what_a_section_leaves_open() -> None:
    document = {"command": ["true"], "resources": {"cpu": 2}, "retries": {"backoff": {"max": "1m"}}}
    spec = parse_spec(document, CLUSTER)
    assert spec.resources == Resources(cpu_milli=2000, memory_bytes=2**30)
    assert spec.retries == Retries(1, 7, Backoff(BackoffKind.LINEAR, 5_000, 60_000))


def test_a_job_can_refuse_the_clusters_timeout_and_retries() -> None:
    spec = parse_spec({"command": ["true"], "timeout": 0, "retries": 0, "resources": {"memory": 0}}, CLUSTER)
    assert (spec.timeout_ms, spec.retries.max, spec.retries.node_lost, spec.resources.memory_bytes) == (0, 0, 7, 0)


def test_a_first_wait_beyond_the_clusters_longest_raises_that_too() -> None:
    spec = parse_spec({"command": ["true"], "retries": {"backoff": {"initial": "1m"}}}, CLUSTER)
    assert (spec.retries.backoff.initial_ms, spec.retries.backoff.max_ms) == (60_000, 60_000)


def test_all_mistakes_are_named_at_once() -> None:
    document = {
        "comand": ["ls"],
        "cpu": 2,
        "tiemout": "5s",
        "resources": {"gpus": 3.5, "memory": -1, "cpu": "fast"},
        "env": {"A": 1, "B=": "x", "C": "\0"},
        "retries": {"max": -1, "backoff": {"kind": "exponentail"}},
    }
    assert problems_of(document) == [
        ("comand", "unknown key", "did you mean 'command'?"),
        ("cpu", "unknown key", "it belongs under `resources`: resources.cpu"),
        ("tiemout", "unknown key", "did you mean 'timeout'?"),
        ("resources.gpus", "must be a whole number, not 3.5", "a GPU is not divided"),
        ("resources.memory", "-1 must be zero or more", ""),
        ("resources.cpu", "'fast' is not a number of cores; write it as 2, 0.5 or 500m", ""),
        ("env.A", "must be text, not 1", "write it in quotes"),
        ("env.B=", "is not a variable's name: it is empty or contains '='", ""),
        ("env.C", "must not contain a NUL character", ""),
        ("retries.max", "must be from 0 to 1000, not -1", ""),
        (
            "retries.backoff.kind",
            "must be one of linear, exponential, not 'exponentail'",
            "did you mean 'exponential'?",
        ),
        ("command", "is missing", "give it, or a `script`"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "path", "cause"),
    [
        ("command", "ls -l", "command", "must be a list such as [echo, hello], not 'ls -l'"),
        ("command", [], "command", "must begin with a program"),
        ("command", ["", "x"], "command", "must begin with a program"),
        ("command", ["sleep", 20], "command[1]", "must be text, not 20"),
        ("command", ["echo", "a\0b"], "command[1]", "must not contain a NUL character"),
        ("command", ["echo", "x" * 131_072], "command[1]", "is larger than 131071 bytes"),
        ("command", None, "command", "has no value"),
        ("name", "my job", "name", "'my job' is not a name"),
        ("name", "x\n", "name", "'x\\n' is not a name"),
        ("name", "n" * 129, "name", f"'{'n' * 59}…' is not a name"),
        ("name", 7, "name", "must be text, not 7"),
        ("env", ["A=1"], "env", "must be a mapping, not a list"),
        ("env", {"": "x"}, "env.", "is not a variable's name: it is empty or contains '='"),
        ("env", {"A": "\ud800"}, "env.A", "contains half of a surrogate pair, which is not a character"),
        ("env", {"A": True}, "env.A", "must be text, not true"),
        ("working_dir", "models", "working_dir", "'models' is not absolute"),
        ("working_dir", "", "working_dir", "'' is not absolute"),
        ("input", "a\0b", "input", "must not contain a NUL character"),
        ("input", "x" * (MAX_INPUT_BYTES + 1), "input", f"is larger than {MAX_INPUT_BYTES} bytes"),
        ("input", {"base64": "AAAA" * 100_000}, "input", f"is larger than {MAX_INPUT_BYTES} bytes"),
        ("input", {"base64": "%"}, "input.base64", "is not base64: Only base64 data is allowed"),
        ("input", {"base64": "é"}, "input.base64", None),
        ("input", {"hex": "00"}, "input", "must be text, or bytes as {base64: TEXT}"),
        ("count", 0, "count", "must be from 1 to 1000000, not 0"),
        pytest.param("count", HUGE, "count", "must be from 1 to 1000000, not so large a number", id="huge"),
        ("count", True, "count", "must be a whole number, not true"),
        ("count", "8", "count", "must be a whole number, not '8'"),
        ("max_running", 0, "max_running", "must be from 1 to 1000000, not 0"),
        ("resources", 2, "resources", "must be a mapping such as {cpu: 2, memory: 4Gi}, not 2"),
        ("resources", {"cpu": "0.0005"}, "resources.cpu", "CPU '0.0005' is finer than a thousandth of a core"),
        ("resources", {"cpu": "9" * 65}, "resources.cpu", None),
        ("resources", {"cpu": float("nan")}, "resources.cpu", "nan must be zero or more"),
        ("resources", {"memory": 1.5}, "resources.memory", "size 1.5 is not a whole number of bytes"),
        ("resources", {"memory": "-1"}, "resources.memory", None),
        ("resources", {"memory": "512Mb"}, "resources.memory", None),
        ("resources", {"gpu": 1}, "resources.gpu", "unknown key"),
        ("resources", {"gpus": -1}, "resources.gpus", None),
        ("resources", {"countables": {"licence": 0}}, "resources.countables.licence", None),
        ("resources", {"countables": {"a b": 1}}, "resources.countables.a b", None),
        (
            "resources",
            {"countables": {"gpus": 1}},
            "resources.countables.gpus",
            "stands beside `countables`, not in it",
        ),
        ("timeout", "10", "timeout", "'10' is not a duration; write it as 10s, 5m or 1h30m"),
        ("timeout", [10], "timeout", "must be a duration such as 10s, not a list"),
        ("timeout", "3661d", "timeout", "must be at most 3660d, not '3661d'"),
        ("kill_grace", "61m", "kill_grace", "must be at most 1h, not '61m'"),
        ("retries", -1, "retries", "must be from 0 to 1000, not -1"),
        ("retries", "3", "retries", "must be a number, or a mapping of max, node_lost and backoff, not '3'"),
        ("retries", {"backoff": {"multiplier": 0.5}}, "retries.backoff.multiplier", None),
        (
            "retries",
            {"backoff": {"multiplier": 1.0001}},
            "retries.backoff.multiplier",
            "1.0001 is finer than a thousandth",
        ),
        (
            "retries",
            {"backoff": {"initial": "2m", "max": "1m"}},
            "retries.backoff.max",
            "must not be shorter than `initial`",
        ),
        ("restart", False, "restart", "must be one of never, on_failure, not false"),
        ("success_exit_codes", [], "success_exit_codes", None),
        ("success_exit_codes", 0, "success_exit_codes", None),
        ("success_exit_codes", [0, 256], "success_exit_codes[1]", "must be an exit code from 0 to 255, not 256"),
        ("on_disconnect", "kill", "on_disconnect", "must be one of run_on, stop, not 'kill'"),
        ("labels", {"a/b": "x"}, "labels.a/b", None),
        ("labels", {"a": "x" * 257}, "labels.a", "is larger than 256 bytes"),
        ("labels", {f"l{n}": "" for n in range(65)}, "labels", "has 65 entries, and may have 64"),
        ("labels", {7: "x"}, "labels", "the key 7 must be text"),
        ("priority", -1, "priority", "must be from 0 to 1000000, not -1"),
        ("queue", "", "queue", "'' is not a name"),
        (
            "deadline",
            "soon",
            "deadline",
            "'soon' is neither a time such as 2026-12-24T18:00:00Z nor a duration such as 2h",
        ),
        ("deadline", "2026-12-24T18:00:00", "deadline", None),
        ("deadline", 0, "deadline", "must not be zero"),
        ("deadline", 1_798_135_200, "deadline", "1798135200 is too many seconds"),
        ("deadline", True, "deadline", None),
        ("not_before", "2026-02-30T18:00:00Z", "not_before", "there is no such day as 2026-02-30"),
        ("not_before", "-1s", "not_before", None),
        ("namespace", "a/b", "namespace", "'a/b' is not a name"),
        ("tags", "night", "tags", "must be a list of names, not 'night'"),
        ("tags", ["a", "b c"], "tags[1]", "'b c' is not a name"),
        ("tags", [f"t{n}" for n in range(33)], "tags", "has 33 entries, and may have 32"),
        ("semaphores", {"licence": 0}, "semaphores.licence", None),
        ("semaphores", ["licence"], "semaphores", "must be a mapping, not a list"),
        ("\ud800", 1, "\\ud800", "unknown key"),
        pytest.param(HUGE, 1, "so large a number", "unknown key", id="huge key"),
    ],
)
def test_a_mistake_is_named(key: str, value: Any, path: str, cause: str | None) -> None:
    ((place, said, _),) = problems_of({"command": ["true"], key: value})
    assert place == path
    assert cause is None or said == cause
    msgspec.json.encode([place, said])


def test_a_command_and_a_script_exclude_each_other() -> None:
    assert problem_of(script="true") == ("command", "and `script` exclude each other", "keep one of them")
    assert problem_of(args=["x"]) == ("args", "are those of a `script`", "put them into `command`, behind the program")


@pytest.mark.parametrize(("start", "end"), [("1h", "30m"), ("2026-12-24T18:00:00Z", "2026-12-24T20:00:00+02:00")])
def test_a_deadline_is_later_than_the_start(start: str, end: str) -> None:
    path, cause, _ = problem_of(not_before=start, deadline=end)
    assert (path, cause) == ("deadline", "is not later than `not_before`")


@pytest.mark.parametrize("document", [b"[]", b"7", b'"true"', b"null", [], 7, '{"command": ["true"]}', None, 0.5, True])
def test_a_job_is_a_mapping(document: bytes) -> None:
    ((path, cause, _),) = problems_of(document)
    assert path == ""
    assert cause.startswith("must be a mapping of a job's keys, not ")


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"command": ["true"]', id="cut off"),
        pytest.param(b'{"command": ["\xff"]}', id="not UTF-8"),
        pytest.param(b'{"command": ["\\ud800"]}', id="half of a surrogate pair"),
        pytest.param(b"[" * 100_000, id="bottomless"),
        pytest.param(b'{"count": 1e999}', id="a number beyond numbers"),
    ],
)
def test_bytes_that_are_not_json_are_malformed(document: bytes) -> None:
    with pytest.raises(MalformedBody):
        parse_spec(document)


def test_the_whole_job_has_a_largest_size() -> None:
    ((path, cause, _),) = problems_of({"script": "x" * (MAX_SPEC_BYTES - 100), "env": {"A": "x" * 1000}})
    assert (path, cause) == ("", f"the job is larger than {MAX_SPEC_BYTES} bytes")


def test_mistakes_without_end_are_not_all_read() -> None:
    assert len(problems_of({f"k{number}": 1 for number in range(100_000)})) == MAX_PROBLEMS


def test_a_spec_does_not_share_the_documents_values() -> None:
    document = {"command": ["true"], "env": {"A": "1"}, "labels": {"a": "1"}}
    spec = parse_spec(document)
    document["env"]["A"] = document["labels"]["a"] = "\0"  # type: ignore[index]
    assert (spec.env, spec.labels) == ({"A": "1"}, {"a": "1"})


def test_a_warning_signal_needs_its_time() -> None:
    path, cause, _ = problem_of(preemption={"signal": "USR1"})
    assert (path, cause) == ("preemption", "has a `signal` without a `warning`")
    assert problem_of(preemption={"signal": "KILL", "warning": 1})[0] == "preemption.signal"


def test_groups_make_a_gang() -> None:
    spec = parse(
        groups=[{"name": "driver", "resources": {"memory": "1Gi"}}, {"name": "worker", "count": 8}],
        resources={"cpu": 2},
    )
    assert (spec.gang, spec.count) == (True, 9)
    assert spec.groups == (
        TaskGroup("driver", 1, Resources(2000, 2**30)),
        TaskGroup("worker", 8, Resources(2000)),
    )


@pytest.mark.parametrize(
    ("document", "path", "cause"),
    [
        pytest.param(
            {"count": 2, "min_count": 3}, "min_count", "is larger than `count`, 2", id="smallest over largest"
        ),
        pytest.param(
            {"count": 4, "min_count": 3, "max_running": 2},
            "min_count",
            "is larger than `max_running`",
            id="smallest over cap",
        ),
        pytest.param(
            {"gang": True, "count": 2, "max_running": 1},
            "max_running",
            "and `gang` exclude each other",
            id="a capped gang",
        ),
        pytest.param(
            {"gang": True, "placement": {"any_of": [{"cpu": 1}, {"cpu": 2}]}},
            "placement.any_of",
            "and `gang` exclude each other",
            id="a gang with alternatives",
        ),
        pytest.param(
            {"gang": True, "count": 20_001},
            "count",
            "is too large for a gang, which has at most 20000 tasks",
            id="a gang beyond measure",
        ),
        pytest.param(
            {"gang": False, "groups": [{"name": "a"}]},
            "gang",
            "is false, and `groups` make a gang",
            id="groups that are no gang",
        ),
        pytest.param(
            {"min_count": 1, "groups": [{"name": "a"}]},
            "min_count",
            "and `groups` exclude each other",
            id="elastic groups",
        ),
        pytest.param(
            {"groups": [{"name": "a"}, {"name": "a"}]},
            "groups[1].name",
            "'a' is another group's too",
            id="one name twice",
        ),
        pytest.param({"groups": [{"count": 1}]}, "groups[0].name", "is missing", id="a group without a name"),
        pytest.param({"groups": []}, "groups", "must be a list of 1 to 32 groups", id="no groups"),
        pytest.param(
            {"count": 2, "groups": [{"name": "a"}]}, "count", "is 2, and the groups have 1 tasks", id="another sum"
        ),
        pytest.param({"groups": [{"name": "a", "size": 1}]}, "groups[0].size", "unknown key", id="an unknown key"),
    ],
)
def test_what_can_not_start_together_is_refused(document: dict[str, Any], path: str, cause: str) -> None:
    where, why, _ = problem_of(**document)
    assert where == path and why.startswith(cause)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, msgspec.Raw])
def test_json_may_come_in_any_buffer(kind: Any) -> None:
    assert parse_spec(kind(b'{"command": ["true"]}')).name == "true"


class TestThePageOfTheJobFile:
    def test_its_example_is_a_job(self) -> None:
        (example_text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
        (document,) = read_documents(example_text, "jobs.md")
        spec = parse_spec(document.value)
        assert (spec.name, spec.count, spec.timeout_ms) == ("train", 8, 5_400_000)

    def test_it_describes_exactly_the_keys_that_are_accepted(self) -> None:
        properties = spec_schema()["properties"]
        accepted = [key for key in properties if key not in ("resources", "placement")]
        for part in ("resources", "placement"):
            accepted += [f"{part}.{key}" for key in properties[part]["properties"]]
        accepted.append("retries.backoff")
        assert sorted(re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE)) == sorted(accepted)


def test_the_schema_is_plain_json() -> None:
    schema = json.loads(json.dumps(spec_schema()))
    assert schema["additionalProperties"] is False
    assert schema["properties"]["count"] == {
        "description": "Number of tasks.",
        "type": "integer",
        "minimum": 1,
        "maximum": 1_000_000,
    }
