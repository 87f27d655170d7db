"""The smallest changes that would start a task: each remedy, applied alone, is enough.

A remedy lifts everything that keeps the job itself back and everything that some node lacks. Of the nodes of one group the one
is chosen that has the least missing, so what is asked of the user is as little as can be. Whatever a remedy says of amounts is
tried on the node, by the sums that the state machine goes by, before it is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from operator import ge, truediv
from typing import Any, NamedTuple

import msgspec

from hasched.model.parse import MAX_DURATION_MS
from hasched.model.policy import THE_GPU_ROOM
from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.taints import format_toleration
from hasched.model.units import format_duration
from hasched.scheduler.blockers import Blocker, Change, Target
from hasched.scheduler.explain.amounts import Amount, amounts_of, lower
from hasched.scheduler.explain.groups import Group
from hasched.scheduler.explain.lacks import Asker, Lack, find_shortages
from hasched.scheduler.explain.marks import FIRST_COUNTABLE, GPUS, SLOTS, mark_shortages
from hasched.scheduler.explain.surroundings import KEYS
from hasched.scheduler.shapes import rounded_down
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

MOST_REMEDIES = 5
_TRIED = 32  # nodes with the most of one resource, where more than two are short
_SETTING = 1.0  # what changing a setting weighs, against the part of a request that has to be given up


class Remedy(NamedTuple):
    """All of `changes` together start a task, on each of so many `nodes`."""

    changes: tuple[Change, ...]
    nodes: int
    weight: float

    @property
    def shared(self) -> bool:
        """Whether others have something of it, too: what is changed is not the job."""
        return any(change.target in (Target.NODE, Target.POLICY) for change in self.changes)

    @property
    def kind(self) -> tuple[str, ...]:
        """What is changed; of remedies of one kind one is enough."""
        return tuple(
            change.key if change.target is not Target.NODE else change.key.rpartition(".")[2] for change in self.changes
        )

    @property
    def text(self) -> str:
        return ", and ".join(change.text for change in self.changes)


def find_remedies(
    state: State, job: Job, asker: Asker, blockers: Sequence[Blocker], groups: Iterable[Group]
) -> list[Remedy]:
    """The smallest first. None if nothing keeps the job back but its turn, or if nothing helps but waiting."""
    first: list[Change] = []
    for blocker in blockers:
        if blocker.change is None:
            return []
        first.append(blocker.change)
    groups = list(groups)
    open_nodes = sum(len(group) for group in groups if group.signature.open)
    if open_nodes:
        return [Remedy(tuple(first), open_nodes, _SETTING * len(first))] if first else []
    by_text: dict[str, Remedy] = {}
    for group in groups:
        remedy = _remedy_on(state, job, asker, group)
        if remedy is not None:
            remedy = Remedy((*first, *remedy.changes), remedy.nodes, remedy.weight + _SETTING * len(first))
            alike = by_text.get(remedy.text)  # the same helps on nodes of another class, too
            by_text[remedy.text] = remedy if alike is None else alike._replace(nodes=alike.nodes + remedy.nodes)
    found = list(by_text.values())
    found.sort(key=lambda remedy: (len(remedy.changes), remedy.weight, -remedy.nodes, remedy.text))
    best = {remedy.kind: remedy for remedy in reversed(found)}
    smallest: list[Remedy] = []
    for remedy in found:
        if best[remedy.kind] is remedy and not any(_is_part(each, remedy) for each in smallest):
            smallest.append(remedy)
    return smallest[:MOST_REMEDIES]


def _is_part(small: Remedy, large: Remedy) -> bool:
    """Whether the large one asks for all that is enough in the small one, and for more."""
    return all(change in large.changes for change in small.changes)


def _remedy_on(state: State, job: Job, asker: Asker, group: Group) -> Remedy | None:
    """What would open one of the group's nodes."""
    signature = group.signature
    lowered = _lower(asker, group)
    if lowered is None:
        return None
    node, request, amounts, weight, nodes = lowered
    changes: list[Change] = []
    for lack in _settings(signature.of_class, signature.of_itself):
        change = _change_setting(state, job, asker, node, lack)
        if change is None:
            return None
        if change.target is Target.NODE:
            nodes = 1
        changes.append(change)
    changes += _merge(asker, signature.of_class, signature.of_itself)
    weight += _SETTING * len(changes)
    return Remedy((*changes, *_change_request(asker, signature.choice, request, amounts)), nodes, weight)


def _settings(*lacks: Iterable[Lack]) -> Iterator[Lack]:
    """Those that are lifted one by one; rules of one kind are lifted together."""
    for some in lacks:
        for lack in some:
            if lack.code not in (ReasonCode.POOL, ReasonCode.TAINT, ReasonCode.CONSTRAINT, *KEYS):
                yield lack


def _change_setting(state: State, job: Job, asker: Asker, node: Node, lack: Lack) -> Change | None:
    match lack.code:
        case ReasonCode.NODE_CORDONED:
            return Change(f"uncordon {node.id}", Target.NODE, f"{node.id}.cordon")
        case ReasonCode.NODE_DRAINING:
            return Change(f"undrain {node.id}", Target.NODE, f"{node.id}.drain")
        case ReasonCode.NODE_QUARANTINED:
            return Change(f"end the quarantine of {node.id}", Target.NODE, f"{node.id}.quarantine")
        case ReasonCode.KEPT_FOR_GPUS:
            return Change("keep nothing for free GPUs", Target.POLICY, f"gpu_room/{THE_GPU_ROOM}.enabled", False)
        case ReasonCode.RESERVATION:
            limit_ms = rounded_down(max(lack.free - state.now_ms - 1000, 0)) - job.spec.kill_grace_ms
            limit_ms = min(limit_ms - limit_ms % 1000, MAX_DURATION_MS)
            if limit_ms <= 0:
                return None
            told = format_duration(limit_ms)
            return Change(
                f"limit its time to {told}, before the reservation {lack.detail} begins", key="timeout", value=told
            )
        case _:
            return None


def _merge(asker: Asker, *lacks: Iterable[Lack]) -> Iterator[Change]:
    """One change for each of the placement rules that stand in the way."""
    details: dict[ReasonCode, list[str]] = {}
    for some in lacks:
        for lack in some:
            details.setdefault(lack.code, []).append(lack.detail)
    rules = asker.rules
    if pools := details.get(ReasonCode.POOL):
        wanted = sorted({*rules.pools, *pools})
        yield Change(f"allow the pool {', '.join(pools)}", key="placement.pool", value=wanted)
    if taints := details.get(ReasonCode.TAINT):
        tolerated = [*map(format_toleration, rules.tolerations), *taints]
        yield Change(f"tolerate the taint {', '.join(taints)}", key="placement.tolerations", value=tolerated)
    if unmet := details.get(ReasonCode.CONSTRAINT):
        kept = [constraint for constraint in rules.constraints if constraint not in unmet]
        text = f"drop the constraint {' and '.join(unmet)}"
        yield Change(text, key="placement.constraints", value=kept or None)
    for code, key in KEYS.items():
        if code in details:
            yield Change(f"leave out {key}", key=key)


class _Lowered(NamedTuple):
    node: Node
    request: Resources
    changed: dict[str, tuple[Any, str]]  # by key below `resources`: the value in a document, and the words
    weight: float  # the parts given up, added
    nodes: int  # that would take it


def _lower(asker: Asker, group: Group) -> _Lowered | None:
    """The request as one of the group's nodes has room for it; None where that would leave nothing of it."""
    choice, mark = group.signature.choice, group.signature.mark
    request = asker.requests[choice]
    if not mark:
        return _Lowered(group.first, request, {}, 0.0, len(group))
    if mark & SLOTS:
        return None
    changed: dict[str, tuple[Any, str]] = {}
    weight = 0.0
    if mark & GPUS and _lacks_the_right_gpus(group.first, request):
        for key, given in (("gpu_model", request.gpu_models), ("gpu_memory", request.gpu_memory_bytes)):
            if given:
                changed[key] = (None, f"GPUs of any {key.removeprefix('gpu_')}")
        request, weight = msgspec.structs.replace(request, gpu_models=(), gpu_memory_bytes=0), _SETTING
        if not all(mark_shortages(node, request) & GPUS for node in group.nodes):
            mark &= ~GPUS
    short = [amount for amount in amounts_of(request) if mark & amount.bit]
    columns = [group.column(amount.column, amount.free) for amount in short]
    place = _least_given_up(short, columns) if short else _first_with_room(group, request)
    if place is None:
        return None
    for amount, column in zip(short, columns, strict=True):
        left = amount.rounded(column[place])
        request = lower(request, amount, left)
        weight += (amount.asked - left) / amount.asked
        key, value = amount.name, amount.write(left)
        if amount.code is ReasonCode.INSUFFICIENT_COUNTABLE:
            key, value = "countables", dict(request.countables)
        changed[key] = (value, f"{amount.tell(left)} instead of {amount.tell(amount.asked)}")
    node = group.nodes[place]
    if mark_shortages(node, request):
        return None
    return _Lowered(node, request, changed, weight, _count(group, request, short, columns))


def _least_given_up(short: Sequence[Amount], columns: Sequence[list[int]]) -> int | None:
    """The place of the node that leaves the most of the request; None where every node leaves nothing of some resource."""
    if any(max(column) <= 0 for column in columns):
        return None
    if len(short) == 1:
        return columns[0].index(max(columns[0]))
    if len(short) == 2:
        (first, second), (a, b) = short, columns
        kept = [x / first.asked + y / second.asked if x > 0 and y > 0 else 0.0 for x, y in zip(a, b, strict=True)]
        best = max(kept)
        return kept.index(best) if best else None
    places = range(len(columns[0]))
    tried = sorted({place for column in columns for place in nlargest(_TRIED, places, key=column.__getitem__)})
    asked = [amount.asked for amount in short]
    least: tuple[float, int] | None = None
    for place in tried:
        row = [column[place] for column in columns]
        if min(row) > 0 and (least is None or sum(map(truediv, row, asked)) > least[0]):
            least = (sum(map(truediv, row, asked)), place)
    return least[1] if least is not None else None


def _first_with_room(group: Group, request: Resources) -> int | None:
    return next((place for place, node in enumerate(group.nodes) if not mark_shortages(node, request)), None)


def _count(group: Group, request: Resources, short: Sequence[Amount], columns: Sequence[list[int]]) -> int:
    """How many of the nodes have room for the lowered request. All of them had room for the rest of it."""
    if not short or (len(group.node_class.gpus) > 1 and request.gpus):
        return sum(not mark_shortages(node, request) for node in group.nodes)
    names = [amount.name for amount in short]
    lows = [amount.asked for amount in amounts_of(request) if amount.name in names]
    if len(lows) == 1:
        return sum(map(lows[0].__le__, columns[0]))
    if len(lows) == len(columns) == 2:
        (first, second), (a, b) = lows, columns
        return sum([x >= first and y >= second for x, y in zip(a, b, strict=True)])
    return sum(all(map(ge, row, lows)) for row in zip(*columns, strict=True))


def _lacks_the_right_gpus(node: Node, request: Resources) -> bool:
    lacking = {lack.code for lack in find_shortages(node, request)}
    return bool(lacking & {ReasonCode.GPU_MODEL, ReasonCode.GPU_MEMORY})


def _change_request(
    asker: Asker, choice: int, request: Resources, changed: dict[str, tuple[Any, str]]
) -> Iterator[Change]:
    """The changes to the job's document that ask for this instead."""
    place = f"placement.any_of[{choice}]" if asker.rules.any_of else "resources"
    if changed and asker.rules.resource_class and not asker.rules.any_of:
        yield Change(f"name no resource class (it was {asker.rules.resource_class})", key="placement.resource_class")
        for amount in amounts_of(request):
            if amount.bit < 1 << FIRST_COUNTABLE and amount.name not in changed:
                words = f"ask for {amount.tell(amount.asked)}"
                yield Change(words, key=f"{place}.{amount.name}", value=amount.write(amount.asked))
    for key, (value, words) in changed.items():
        yield Change(f"ask for {words}", key=f"{place}.{key}", value=value)
