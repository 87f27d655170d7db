"""Configuration text: what is accepted, and how every mistake is named with its line."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.model.config_text import Cpu, Duration, Size, load_config
from hasched.model.errors import ConfigInvalid
from hasched.model.states import PlacementPolicy
from hasched.model.yaml_text import read_documents


class Part(msgspec.Struct, frozen=True):
    name: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 80


class Sample(msgspec.Struct, frozen=True):
    grace: Duration = 0
    memory: Size | None = None
    cpu: Cpu = 1000
    parts: list[Part] = []
    labels: dict[str, str] = {}
    policy: PlacementPolicy = PlacementPolicy.SPREAD
    part: Part = Part("p")
    tags: tuple[str, ...] = ()


def problems(text: str, **env: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(text, "f.yaml", Sample, {f"HASCHED_{key}": value for key, value in env.items()})
    return [(error.line, error.path, error.cause) for error in caught.value.errors]


def test_quantities_become_integers():
    text = "grace: 1m30s\nmemory: 4Gi\ncpu: 1.5\nparts: [{name: a, port: 9}]\nlabels: {k: v}\npolicy: bin_pack\n"
    assert load_config(text, "f.yaml", Sample) == Sample(
        90_000, 4 * 2**30, 1500, [Part("a", 9)], {"k": "v"}, PlacementPolicy.BIN_PACK
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_means_the_defaults(text):
    assert load_config(text, "f.yaml", Sample) == Sample()


def test_all_mistakes_are_reported_at_once_each_with_its_line():
    text = "gracee: 10s\nmemory: 4Gx\nparts:\n  - nam: x\n  - name: y\n    port: 70000\npolicy: sprad\npart: []\n"
    assert problems(text) == [
        (1, "gracee", "unknown key; did you mean 'grace'?"),
        (2, "memory", "'4Gx' is not a size; write it as 512Mi, 4G or a number of bytes"),
        (4, "parts[0].nam", "unknown key; did you mean 'name'?"),
        (4, "parts[0].name", "is missing"),
        (6, "parts[1].port", "expected int <= 65535, not 70000"),
        (7, "policy", "must be one of bin_pack, spread, round_robin, weighted, not 'sprad'; did you mean 'spread'?"),
        (8, "part", "must be a mapping, not an empty list"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        pytest.param(
            "a: 1\ngrace: &x 3\n", 2, "anchors and aliases are not allowed", id="anchors could grow without end"
        ),
        pytest.param("part: !!python/object:x {}\n", 1, "not allowed", id="tags could name code"),
        pytest.param("\n<<: {a: 1}\n", 2, "a key must be plain text", id="merge keys"),
        pytest.param("cpu: 1\ncpu: 2\n", 2, "appears twice", id="a key given twice"),
        pytest.param("[" * 100, 1, "nested deeper", id="depth"),
        pytest.param("a: 'x\n", 2, "unexpected end", id="broken quotes"),
        pytest.param("\n\na: \x01", 3, "unacceptable character", id="control characters"),
        pytest.param("cpu: 1\n---\ncpu: 2\n", 3, "one document", id="two documents"),
        pytest.param("- a\n", 1, "must be a mapping", id="a list"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_line(text, line, cause):
    (found,) = problems(text)
    assert found[0] == line
    assert cause in found[2]


def test_the_environment_overrides_the_file_at_every_depth():
    env = {
        "HASCHED_GRACE": "5m",
        "HASCHED_PART__NAME": "007",
        "HASCHED_PARTS": "[{name: q}]",
        "HASCHED_TAGS": "a, b",
        "HASCHED_JOB_ID": "not a setting",
    }
    config = load_config("grace: 1s\n", "f.yaml", Sample, env)
    assert config == Sample(grace=300_000, part=Part("007"), parts=[Part("q")], tags=("a", "b"))


def test_a_bad_override_names_its_variable():
    assert problems("", POLICY="x", PART__PORT="99999", PART__NAME="p", PARTS="[") == [
        (0, "HASCHED_PARTS", "did not find expected node content"),
        (0, "HASCHED_POLICY", "must be one of bin_pack, spread, round_robin, weighted, not 'x'"),
        (0, "HASCHED_PART__PORT", "expected int <= 65535, not 99999"),
    ]


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_invalid_with_lines_that_exist(text):
    try:
        load_config(text, "f.yaml", Sample)
    except ConfigInvalid as error:
        assert error.errors
        assert all(1 <= each.line <= text.count("\n") + text.count("\r") + 3 for each in error.errors)


def test_a_document_knows_the_nearest_line_of_a_path():
    (document,) = read_documents("a:\n  b: [1,\n      2]\n", "f.yaml")
    assert [document.line_of(path) for path in ("a.b[1]", "a.b[7].c", "zzz")] == [3, 2, 1]
