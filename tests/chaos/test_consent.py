"""A cluster that isn't marked as a test cluster is broken only by somebody who typed its name; and that is noted."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.cluster.attached import AttachedCluster
from chaos.consent import require
from chaos.errors import ConsentMissing, MachineLacks
from hasched.client.context import Context, save_context
from tests.support.cluster import ProcessCluster


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Contexts of a cluster that is marked, and of one that isn't: a manager each, called test."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HASCHED_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
    with (
        ProcessCluster(tmp_path_factory.mktemp("marked"), managers=1, agents=0, settings={"test_cluster": True}) as one,
        ProcessCluster(tmp_path_factory.mktemp("real"), managers=1, agents=0) as other,
    ):
        for name, cluster in (("marked", one), ("real", other)):
            cluster.start("m1")
            context = Context([cluster.member("m1")["api"]], str(cluster.ca), cluster.token)
            save_context(name, context, current=False)
        yield
    patch.undo()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state" / "chaos"


def noted(state: Path) -> list[str]:
    path = state / "audit.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(line["act"] == "consent" and line["cluster"] == "test" for line in lines)
    return [line["what"] for line in lines]


async def test_a_marked_cluster_needs_no_word(clusters: None, state: Path):
    await require(await AttachedCluster.look("marked"), None, interactive=False)
    assert noted(state) == ["it is marked as a test cluster by 1 of 1 managers"]


@pytest.mark.parametrize(
    ("typed", "cause"),
    [
        pytest.param(None, "is not marked as a test cluster", id="nothing"),
        pytest.param("", "is not marked as a test cluster", id="an empty word"),
        pytest.param("production", "'production' was typed, and this cluster is test", id="another name"),
        pytest.param("TEST", "'TEST' was typed", id="nearly its name"),
    ],
)
async def test_without_its_name_a_real_cluster_is_left_alone(
    clusters: None, state: Path, typed: str | None, cause: str
):
    with pytest.raises(ConsentMissing, match=cause) as refused:
        await require(await AttachedCluster.look("real"), typed, interactive=False)
    assert refused.value.hint
    assert noted(state) == []


async def test_its_name_is_consent(clusters: None, state: Path):
    await require(await AttachedCluster.look("real"), "test", interactive=False)
    assert noted(state) == ["its name was typed"]


@pytest.mark.parametrize(("answer", "agrees"), [("test\n", True), ("yes\n", False), ("\n", False)])
async def test_at_a_terminal_we_ask(
    clusters: None,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    agrees: bool,
):
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(ours, answer.encode())
        cluster = await AttachedCluster.look("real")
        if agrees:
            await require(cluster, None, interactive=True)
        else:
            with pytest.raises(ConsentMissing):
                await require(cluster, None, interactive=True)
    os.close(ours)
    assert "Type the cluster's name to go on: " in capsys.readouterr().err
    assert bool(noted(state)) is agrees


async def test_a_question_can_be_interrupted(
    clusters: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        question = asyncio.create_task(require(await AttachedCluster.look("real"), None, interactive=True))
        asked = ""
        while "to go on" not in asked:
            await asyncio.sleep(0)
            asked += capsys.readouterr().err
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
    os.close(ours)


async def test_consent_that_cannot_be_noted_is_none(clusters: None, state: Path):
    (state / "audit.jsonl").mkdir(parents=True)
    with pytest.raises(MachineLacks, match="audit log can't be written"):
        await require(await AttachedCluster.look("real"), "test", interactive=False)
