"""A run of 90 seconds as in production: kills, freezes, cuts, and the nemesis of the documentation. Every promise holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHAOS = [sys.executable, "-m", "hasched", "chaos"]
NEMESES = (
    "kill-leader",
    "kill-manager",
    "freeze-leader",
    "freeze-agent",
    "split-halves",
    "one-way-cut",
    "agent-cut-off",
)


@pytest.fixture(scope="module")
def documented(tmp_path_factory) -> Path:
    """The nemesis of docs/chaos.md, as a file."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "chaos.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 34, "a nemesis of one's own should be short"
    path = tmp_path_factory.mktemp("mine") / "frozen.py"
    path.write_text(code)
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="cuts need root")
@pytest.mark.timeout(400)
def test_every_promise_holds_under_kills_freezes_and_cuts(documented, tmp_path, monkeypatch):
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    chosen = [word for name in (*NEMESES, "frozen-follower") for word in ("--nemesis", name)]
    command = [*CHAOS, "run", "--minutes", "1.5", "--seed", "1", "--with", str(documented), *chosen]
    done = subprocess.run(
        [*command, "--output", str(tmp_path), "--json"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    report = json.loads(done.stdout)
    assert {each["verdict"] for each in report["verdicts"]} == {"held"} and len(report["verdicts"]) == 10
    strikes = Counter(each["nemesis"] for each in report["strikes"] if each["outcome"] == "done")
    assert {*NEMESES, "frozen-follower"} <= strikes.keys(), report["strikes"]
    assert not [each for each in report["strikes"] if each["outcome"] == "failed"]
    assert sum(each["returned"] for each in report["calls"]) > 1000
    assert not list((tmp_path / "state" / "chaos" / "ledgers").iterdir())

    shown = subprocess.run(
        [*CHAOS, "report", str(tmp_path / "report.json")], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0 and "frozen-follower" in shown.stdout


def test_a_plan_and_a_dry_run_do_nothing(documented, tmp_path, monkeypatch):
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    options = ["--minutes", "3", "--seed", "5", "--with", str(documented), "--json"]
    plan = subprocess.run([*CHAOS, "plan", *options], capture_output=True, text=True, check=True).stdout
    assert (
        subprocess.run([*CHAOS, "run", "--dry-run", *options], capture_output=True, text=True, check=True).stdout
        == plan
    )
    strikes = json.loads(plan)["strikes"]
    assert len(strikes) > 10 and "frozen-follower" in {each["nemesis"] for each in strikes}
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        pytest.param(
            ["run", "--nemesis", "nonsense"], 66, "no nemesis or family called 'nonsense'", id="no such nemesis"
        ),
        pytest.param(["drill", "nonsense"], 66, "no drill called 'nonsense'", id="no such drill"),
        pytest.param(["drill"], 2, "name the drills to play", id="no drill named"),
        pytest.param(
            ["run", "--hasched", "/bin/false"], 65, "`/bin/false version` can't be run: exit", id="no hasched"
        ),
        pytest.param(["drill", "leader-kill", "--hasched", "/nowhere/hasched"], 65, "No such file", id="no program"),
        pytest.param(["run", "--cluster", "prod"], 65, "give it together with --attach", id="consent for nothing"),
        pytest.param(
            ["run", "--attach", "--managers", "5"], 65, "takes the cluster as it is", id="a cluster that is there"
        ),
    ],
)
def test_what_can_not_be_meant_is_refused(arguments, code, told, tmp_path, monkeypatch):
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    done = subprocess.run([*CHAOS, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "state").exists()
