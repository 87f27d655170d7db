"""Contexts: kept privately, chosen by name, overridden value by value."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hasched.client.context import Context, contexts_path, load_context, load_contexts, save_context, use_context
from hasched.model.errors import BadRequest, NotFound

A = Context(managers=["https://a:1"], ca="/a.crt", token="ta")
B = Context(managers=["https://b:1"], ca="/b.crt", token="tb")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    environ = {"HASCHED_CONFIG_DIR": str(tmp_path / "config")}
    save_context("a", A, current=True, environ=environ)
    save_context("b", B, current=False, environ=environ)
    return environ


def test_the_current_one_is_used_unless_another_is_named(environ: dict[str, str]) -> None:
    assert load_context(environ=environ) == A
    assert load_context("b", environ) == B
    assert load_context(environ={**environ, "HASCHED_CONTEXT": "b"}) == B
    use_context("b", environ)
    assert load_context(environ=environ) == B


def test_single_values_can_be_replaced(environ: dict[str, str]) -> None:
    overrides = {"HASCHED_MANAGERS": "https://x:1, https://y:1", "HASCHED_TOKEN": "t"}
    assert load_context(environ={**environ, **overrides}) == Context(["https://x:1", "https://y:1"], "/a.crt", "t")


def test_a_context_may_name_a_namespace(environ: dict[str, str]) -> None:
    save_context("c", Context(B.managers, B.ca, B.token, "red"), current=False, environ=environ)
    assert load_context("c", environ).namespace == "red"
    assert load_context("c", {**environ, "HASCHED_NAMESPACE": "blue"}).namespace == "blue"
    assert load_context("a", environ).namespace == ""
    with pytest.raises(BadRequest, match="'a/b' can't be a namespace"):
        load_context("a", {**environ, "HASCHED_NAMESPACE": "a/b"})


def test_no_file_is_needed(tmp_path: Path) -> None:
    environ = {"HASCHED_CONFIG_DIR": str(tmp_path), "HASCHED_MANAGERS": "https://x:1", "HASCHED_CA": "/ca"}
    assert load_context(environ=environ) == Context(["https://x:1"], "/ca", "")
    del environ["HASCHED_CA"]
    with pytest.raises(NotFound, match="no cluster was chosen"):
        load_context(environ=environ)


def test_the_file_is_its_owners_alone(environ: dict[str, str]) -> None:
    path = contexts_path(environ)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_an_unknown_name_lists_the_known(environ: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="there are: a, b"):
        load_context("c", environ)


def test_a_broken_file_is_neither_used_nor_lost(environ: dict[str, str]) -> None:
    path = contexts_path(environ)
    path.write_text("contexts: [")
    with pytest.raises(BadRequest, match=r"contexts\.yaml"):
        load_contexts(environ)
    with pytest.raises(BadRequest):
        save_context("c", A, current=True, environ=environ)
    assert path.read_text() == "contexts: ["
