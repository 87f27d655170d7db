"""`hasched fairshare show`: the tree of accounts as text."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner
from scripted_manager import Scene, reply

from hasched.cli.main import cli
from hasched.model.views import FairShareView, ShareView


def share(name: str, **fields: object) -> ShareView:
    usual = {
        "weight_milli": 1000,
        "due": 0.5,
        "used": 0.25,
        "factor": 0.707,
        "usage_core_s": 5400,
        "running_milli": 1500,
    }
    return ShareView(name=name, **{**usual, **fields})  # type: ignore[arg-type]


TREE = FairShareView(
    enabled=True,
    now_ms=0,
    half_life_ms=604_800_000,
    queues=[share("batch")],
    namespaces=[share("red", users=[share("ada", used=1.0)]), share("blue", weight_milli=2500)],
)


@pytest.mark.parametrize(
    ("options", "view", "lines"),
    [
        pytest.param(
            [],
            TREE,
            [
                "half-life  7d",
                "",
                "ACCOUNT  WEIGHT  DUE    USED    FACTOR  CORE-HOURS  CORES NOW",
                "red      1       50.0%  25.0%   0.707   1.5         1.5",
                "  ada    1       50.0%  100.0%  0.707   1.5         1.5",
                "blue     2.5     50.0%  25.0%   0.707   1.5         1.5",
            ],
            id="a tree",
        ),
        pytest.param(["--namespace", "blue"], TREE, ["blue     2.5"], id="one namespace"),
        pytest.param(["--queues"], TREE, ["batch    1"], id="queues"),
        pytest.param(
            [],
            FairShareView(enabled=False, now_ms=0),
            ["fair share is off: the policy fair_share/default turns"],
            id="off",
        ),
    ],
)
def test_it_is_shown_as_a_tree(scene: Scene, options: list[str], view: FairShareView, lines: list[str]) -> None:
    scene.manager(reply(200, msgspec.to_builtins(view)))
    context = scene.context()
    environment = {
        "HASCHED_MANAGERS": ",".join(context.managers),
        "HASCHED_CA": context.ca,
        "HASCHED_TOKEN": context.token,
    }
    result = CliRunner().invoke(cli, ["fairshare", "show", *options], env=environment, prog_name="hasched")
    assert result.exit_code == 0, result.output
    shown = result.stdout.splitlines()
    assert shown == lines if len(lines) > 1 else any(line.startswith(lines[0]) for line in shown)
