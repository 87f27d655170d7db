"""Schedules: the same seed gives the same one, everything comes up, and never too much at once."""

from __future__ import annotations

import asyncio

import pytest

from chaos import planning, run, strikes
from chaos.abilities import Ability
from chaos.planning import CALM_EVERY_S, CALM_S, TOGETHER, Offer, Planned
from chaos.record import Record, Struck
from chaos.registry import Registry
from chaos.report.document import Verdict
from chaos.run import doubt_idle
from chaos.strikes import second_chances
from hasched.model.errors import BadRequest, NotFound

FIVE = Offer(managers=["m1", "m2", "m3", "m4", "m5"], agents=["n1", "n2", "n3", "n4"], missing={})


@pytest.fixture(scope="module")
def registry():
    return Registry()


def test_a_seed_is_a_schedule(registry):
    nemeses = list(registry.nemeses.values())
    assert planning.draw(7, nemeses, 300) == planning.draw(7, nemeses[::-1], 300)
    assert planning.draw(7, nemeses, 300) != planning.draw(8, nemeses, 300)


def test_everything_comes_up_in_ten_minutes(registry):
    nemeses, left_out = planning.usable(list(registry.nemeses.values()), FIVE)
    for seed in range(20):
        plan = planning.draw(seed, nemeses, 600)
        assert {each.nemesis for each in plan} == registry.nemeses.keys(), seed
    assert left_out == []


def test_a_schedule_stays_within_its_bounds(registry):
    for seed in range(20):
        plan = planning.draw(seed, list(registry.nemeses.values()), 600)
        assert [each.number for each in plan] == list(range(1, len(plan) + 1))
        for each in plan:
            shortest, longest = registry.nemeses[each.nemesis].seconds
            assert shortest - 0.1 <= each.seconds <= longest + 0.1
            assert each.at_s + each.seconds <= 600.1
            assert each.at_s % CALM_EVERY_S <= CALM_EVERY_S - CALM_S + 0.1
            under_way = [other for other in plan if other.at_s <= each.at_s < other.at_s + other.seconds - 0.1]
            assert len(under_way) <= TOGETHER


def test_a_short_time_is_used_and_one_that_is_too_short_is_empty(registry):
    nemeses = list(registry.nemeses.values())
    for seed in range(20):
        assert planning.draw(seed, nemeses, 10)
    assert planning.draw(1, nemeses, 1) == []
    assert planning.draw(1, [], 600) == []


def test_what_a_cluster_lacks_is_left_out_with_the_reason(registry):
    poor = Offer(managers=["m1", "m2", "m3"], agents=[], missing={Ability.CUTS: "that needs root"})
    kept, left_out = planning.usable(list(registry.nemeses.values()), poor)
    assert kept and not any(Ability.CUTS in each.needs or each.agents for each in kept)
    assert len(kept) + len(left_out) == len(registry.nemeses)
    assert any(sentence.endswith("cuts between its hosts: that needs root") for sentence in left_out)
    assert any("agents, and there are 0" in sentence for sentence in left_out)
    assert planning.grouped(["a: it rains", "b: it snows", "c: it rains"]) == ["a, c: it rains", "b: it snows"]


def test_nemeses_are_chosen_by_name_and_family(registry):
    network = registry.choose_nemeses(["network"])
    assert network and {each.family.value for each in network} == {"network"}
    assert [each.name for each in registry.choose_nemeses(["kill-leader"])] == ["kill-leader"]
    assert "kill-leader" not in [each.name for each in registry.choose_nemeses([], ["kill-leader"])]
    with pytest.raises(NotFound, match="'kill-leeder'"):
        registry.choose_nemeses(["kill-leeder"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("1 / 0", "ZeroDivisionError", id="code that fails"),
        pytest.param("this is no Python", "SyntaxError", id="no Python"),
        pytest.param(
            "from chaos.nemeses.kill_leader import KillLeader\nclass Mine(KillLeader): pass",
            "another",
            id="a known name",
        ),
    ],
)
def test_a_file_that_is_no_use_is_told(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BadRequest, match=told):
        Registry([path])


async def test_a_run_that_is_ended_amid_a_strike_ends_so():
    class Endless:
        async def strike(self, stage, seconds):
            begun.set()
            await asyncio.Event().wait()

    begun, told = asyncio.Event(), []
    plan = [Planned(number=1, nemesis="endless", family="process", at_s=0.0, seconds=1.0, seed="1 1")]
    carried_out = asyncio.create_task(
        strikes.carry_out(
            plan, {"endless": Endless()}, None, Record(), over=asyncio.Event(), told=run._teller(told.append)
        )
    )
    await begun.wait()
    carried_out.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carried_out
    assert [line.partition(": ")[2] for line in told] == ["under way"]


@pytest.mark.parametrize(
    ("outcomes", "verdicts"),
    [
        pytest.param(["done", "skipped"], ["held", "held"], id="one strike came off"),
        pytest.param(["skipped", "failed"], ["held", "undecided"], id="none did"),
        pytest.param([], ["held", "undecided"], id="there was none"),
    ],
)
def test_a_run_without_a_strike_says_nothing_about_getting_well(outcomes, verdicts):
    record = Record()
    record.strikes = [
        Struck(number=number, nemesis="kill-leader", family="process", at_s=0.0, outcome=outcome)
        for number, outcome in enumerate(outcomes)
    ]
    held = [Verdict(name=name, promise="", verdict="held", looked_at="x") for name in ("durability", "liveness")]
    assert [each.verdict for each in doubt_idle(record, held)] == verdicts


def test_who_was_skipped_every_time_has_a_second_chance():
    plan = [
        Planned(number=number, nemesis=name, family="process", at_s=number, seconds=1.0, seed=f"1 {number}")
        for number, name in enumerate(["a", "b", "a", "c", "b", "d"], 1)
    ]
    outcomes = ["skipped", "skipped", "done", "failed", "skipped"]
    strikes = [
        Struck(number=each.number, nemesis=each.nemesis, family="process", at_s=0.0, outcome=outcome)
        for each, outcome in zip(plan, outcomes, strict=False)
    ]
    again = second_chances(plan, strikes)
    assert [(each.number, each.nemesis, each.seed) for each in again] == [(7, "b", "1 2"), (8, "d", "1 6")]
