"""Schedules of faults, drawn from a seed: the same seed, nemeses and time give the same schedule, on any machine.

What can't be planned is whom a strike hits: that depends on who leads and who is free when it comes. Each strike draws it
from a seed of its own, so that one that is skipped changes nothing for the next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from chaos.abilities import Ability
from chaos.cluster.base import Cluster
from chaos.nemeses.base import Nemesis

TOGETHER = 3  # strikes at one time, at most
GAP_S = 4.0  # between the beginnings of two, on average
CALM_EVERY_S = 60.0
CALM_S = 6.0  # nothing begins for so long: a cluster that never gets well is not what anybody runs


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One strike. `at_s` counts from the beginning of the faults; `seed` is what it draws its targets from."""

    number: int
    nemesis: str
    family: str
    at_s: float
    seconds: float
    seed: str


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule must know of a cluster."""

    managers: list[str]
    agents: list[str]
    missing: dict[Ability, str]


def usable(nemeses: Sequence[Nemesis], cluster: Cluster | Offer) -> tuple[list[Nemesis], list[str]]:
    """Those that this cluster can be struck with, and a sentence for each that is left out."""
    kept, left_out = [], []
    for nemesis in nemeses:
        why = _obstacle(nemesis, cluster.missing, len(cluster.managers), len(cluster.agents))
        if why:
            left_out.append(f"{nemesis.name}: {why}")
        else:
            kept.append(nemesis)
    return kept, left_out


def _obstacle(nemesis: Nemesis, missing: dict[Ability, str], managers: int, agents: int) -> str:
    if managers < nemesis.managers:
        return f"it needs {nemesis.managers} managers, and there are {managers}"
    if agents < nemesis.agents:
        return f"it needs {nemesis.agents} agents, and there are {agents}"
    return next((f"needs {each}: {missing[each]}" for each in nemesis.needs if each in missing), "")


def grouped(left_out: Sequence[str]) -> list[str]:
    """The same, with those of one reason in one sentence."""
    names: dict[str, list[str]] = {}
    for sentence in left_out:
        name, _, why = sentence.partition(": ")
        names.setdefault(why, []).append(name)
    return [f"{', '.join(found)}: {why}" for why, found in names.items()]


def draw(seed: int, nemeses: Sequence[Nemesis], duration_s: float) -> list[Planned]:
    """Every nemesis comes up as often as its weight says before any comes up again, as from a pack of cards."""
    chance = random.Random(f"schedule {seed}")  # noqa: S311 - a schedule, not a secret
    by_name = sorted(nemeses, key=lambda each: each.name)
    planned: list[Planned] = []
    pack: list[Nemesis] = []
    ends: list[float] = []  # of the strikes under way
    at_s = 1.0
    passed_over = 0  # in a row, since what is left of the time is too short for them
    while passed_over < sum(each.weight for each in by_name):
        if not pack:
            pack = _shuffled(by_name, chance)
        nemesis = pack.pop()
        shortest, longest = nemesis.seconds
        ends = [end for end in ends if end > at_s]
        if len(ends) >= TOGETHER:
            at_s = min(ends)
        at_s = _after_calm(at_s)
        left_s = duration_s - at_s
        if left_s < shortest:
            passed_over += 1
            continue
        passed_over = 0
        seconds = round(chance.uniform(shortest, min(longest, left_s)), 1)
        planned.append(
            Planned(
                number=len(planned) + 1,
                nemesis=nemesis.name,
                family=nemesis.family.value,
                at_s=round(at_s, 1),
                seconds=seconds,
                seed=f"{seed} {len(planned) + 1}",
            )
        )
        ends.append(at_s + seconds)
        at_s += min(chance.expovariate(1 / GAP_S), 3 * GAP_S)
    return planned


def _shuffled(nemeses: Sequence[Nemesis], chance: random.Random) -> list[Nemesis]:
    """Each once, in any order, and below them the further copies of those with more weight: first everything is seen."""
    first = list(nemeses)
    further = [nemesis for nemesis in nemeses for _ in range(nemesis.weight - 1)]
    chance.shuffle(first)
    chance.shuffle(further)
    return further + first


def _after_calm(at_s: float) -> float:
    """The same moment, or the end of the calm that it lies in."""
    into = at_s % CALM_EVERY_S
    return at_s if into < CALM_EVERY_S - CALM_S else at_s - into + CALM_EVERY_S
