"""What the planner makes of nodes that are kept from new work."""

from __future__ import annotations

import pytest

from hasched.model.taints import Taint
from hasched.scheduler.explain import pending_reason
from hasched.statemachine.commands import (
    Command,
    DrainNode,
    EndQuarantine,
    QuarantineNode,
    SetNodeEligibility,
    SetNodeProperties,
    UndrainNode,
)
from tests.scheduler.world import World

CORDON = SetNodeEligibility(node_id="n1", eligible=False, actor="ada")
DRAIN = DrainNode(node_id="n1", actor="ada")
QUARANTINE = QuarantineNode(node_id="n1", reason="launches fail", wait_ms=1_000)


@pytest.mark.parametrize(
    ("keep_away", "let_back"),
    [
        pytest.param(CORDON, SetNodeEligibility(node_id="n1", eligible=True, actor="ada"), id="cordon"),
        pytest.param(DRAIN, UndrainNode(node_id="n1", actor="ada"), id="drain"),
        pytest.param(QUARANTINE, EndQuarantine(node_id="n1", actor="ada"), id="quarantine"),
    ],
)
def test_nothing_is_planned_for_a_node_until_it_takes_work_again(keep_away: Command, let_back: Command) -> None:
    world = World()
    world.node("n1")
    world.do(keep_away)
    world.submit()
    assert world.settle() == []
    world.do(let_back)
    assert world.settle() == ["1.0@n1"]


def test_a_plan_made_before_a_cordon_starts_nothing_after_it() -> None:
    world = World()
    world.node("n1")
    world.submit()
    plan = world.plan()
    assert plan is not None
    world.do(CORDON)
    assert world.decide(plan).refused == 1


def test_a_job_that_waits_is_told_what_keeps_work_away() -> None:
    world = World()
    for node_id in ("n1", "n2"):
        world.node(node_id)
    world.do(CORDON)
    world.do(QUARANTINE)
    world.do(DrainNode(node_id="n2", actor="ada"))
    job = world.submit()
    reason = pending_reason(world.state, job)
    assert reason is not None
    assert reason.text == "none of 2 nodes is healthy and takes work: 1 cordoned, 1 drained, 1 quarantined"


def test_a_taint_a_pool_and_their_end_reach_the_planner() -> None:
    world = World()
    world.node("n1")
    for properties in ({"taints": {"loud": Taint("loud")}}, {"pool": "lab"}):
        world.do(SetNodeProperties(node_id="n1", actor="ada", **properties))  # type: ignore[arg-type]
        job = world.submit()
        assert world.settle() == []
        world.do(SetNodeProperties(node_id="n1", actor="ada", reset=True))
        assert world.settle() == [f"{job.id}.0@n1"]
