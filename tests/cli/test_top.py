"""`hasched top` shows as much of a cluster as a terminal has room for, what needs a look before the rest."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from hasched.cli.top import Look, fit, share_out
from hasched.model.views import ManagerPage, ManagerView, NodePage
from hasched.statemachine import queries
from hasched.statemachine.commands import SetNodeEligibility
from tests.scheduler.world import World


@pytest.mark.parametrize(
    ("lines", "there", "shown"),
    [
        pytest.param(24, (3, 4, 2), (3, 4, 2), id="all of a small cluster"),
        pytest.param(24, (3, 100, 15), (3, 4, 4), id="nodes and jobs share what is left"),
        pytest.param(24, (3, 100, 1), (3, 7, 1), id="what jobs leave is the nodes'"),
        pytest.param(24, (3, 2, 15), (3, 2, 6), id="what nodes leave is the jobs'"),
        pytest.param(60, (5, 100, 15), (5, 27, 15), id="a large terminal"),
        pytest.param(10, (3, 100, 15), (1, 1, 1), id="one that is too small has a row of each"),
    ],
)
def test_lines_are_shared_out(lines: int, there: tuple[int, int, int], shown: tuple[int, int, int]):
    assert share_out(lines, *there) == shown


def a_cluster(nodes: int, jobs: int) -> Look:
    """So many nodes, of which the last is cordoned, and a job on each of the first few."""
    world = World()
    for number in range(1, nodes + 1):
        world.node(f"n{number}", cpu=4)
    for _ in range(jobs):
        world.submit(cpu=4)
    world.settle()
    world.do(SetNodeEligibility(node_id=f"n{nodes}", eligible=False, actor="ada", reason="a fan"))
    page = queries.list_nodes(world.state)
    connected = NodePage(nodes=[msgspec.structs.replace(node, connected=True) for node in page.nodes])
    managers = [
        ManagerView(f"m{number}", f"https://h{number}:7411", f"h{number}:7412", "follower", 1, 9, 9, 9, "0.2.0", True)
        for number in range(1, 4)
    ]
    cluster = queries.cluster_view(world.state, cluster="c", leader="m1", term=1)
    return Look(cluster, ManagerPage(leader="m1", managers=managers), connected, queries.list_jobs(world.state).jobs)


def shown(look: Look, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(fit(look, console))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [100, 200])
@pytest.mark.parametrize("height", [24, 40])
def test_a_large_cluster_fits_the_terminal(width: int, height: int):
    lines = shown(a_cluster(200, 30), width, height)
    assert len(lines) <= height
    (more,) = (line for line in lines if "more" in line)
    rows = [line.split()[0] for line in lines if line.startswith("n") and line[1:2].isdigit()]
    assert more == f"… and {200 - len(rows)} nodes more"
    assert rows[0] == "n200", "who is cordoned comes first"
    assert rows[1:] == sorted(rows[1:], key=lambda name: int(name[1:])), "those with tasks, then the others"


def test_a_small_cluster_is_shown_whole():
    lines = shown(a_cluster(3, 2), 120, 40)
    assert not [line for line in lines if "more" in line]
    assert [line.split()[0] for line in lines if line.startswith("n") and line[1:2].isdigit()] == ["n3", "n1", "n2"]
