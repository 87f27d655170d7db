"""All nodes in one sentence: whether one has room, could have it, or never will, and what the largest is that could ever fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.words import counted, none_of
from hasched.scheduler.blockers import Blocker
from hasched.scheduler.explain.amounts import amounts_of
from hasched.scheduler.explain.groups import Group
from hasched.statemachine.capacity import emptied
from hasched.statemachine.state import State

_LOOKED_AT = 3  # nodes of a group: those of one class differ by some kilobytes of memory


def sum_up(state: State, requests: Sequence[Resources], groups: Sequence[Group], held_back: bool) -> Iterator[Blocker]:
    """All nodes in one sentence."""
    open_nodes = sum(len(group) for group in groups if group.signature.open)
    if open_nodes:
        if not held_back:
            have = "has" if open_nodes == 1 else "have"
            text = (
                f"{open_nodes} of {counted(len(state.nodes), 'node')} {have} room: it starts as soon as its turn comes"
            )
            yield Blocker(ReasonCode.WAITING_TURN, text)
        return
    in_service = [group for group in groups if not group.signature.of_class and not group.signature.of_itself]
    nodes = sum(len(group) for group in in_service)
    if not nodes:
        yield Blocker(
            ReasonCode.NO_NODES,
            f"{none_of(len(state.nodes), 'node')} is in service and may run it"
            if state.nodes
            else "there is no node yet: no agent has come",
            nodes=len(state.nodes),
        )
        return
    whose = f"none of the {nodes} nodes that may run it has" if nodes > 1 else "the only node that may run it hasn't"
    if any(_could_hold(group, request) for group in in_service for request in requests):
        yield Blocker(ReasonCode.INSUFFICIENT_RESOURCES, f"{whose} enough free now", nodes=nodes)
        return
    nearest = _nearest(in_service, requests[0])
    yield Blocker(ReasonCode.UNSATISFIABLE, f"{whose} so much in all{nearest and '; '}{nearest}", nodes=nodes)


def _could_hold(group: Group, request: Resources) -> bool:
    """Whether an empty node of the class would do; of amounts that are counted alike."""
    total = group.node_class.total
    offered = dict(total.countables)
    return (
        any(node.info.resources.memory_bytes >= request.memory_bytes for node in group.nodes[:_LOOKED_AT])
        and total.cpu_milli >= request.cpu_milli
        and (not request.gpus or emptied(group.first).free_gpus(request) >= request.gpus)
        and total.disk_bytes >= request.disk_bytes
        and all(offered.get(name, 0) >= amount for name, amount in request.countables)
    )


def _nearest(groups: Sequence[Group], request: Resources) -> str:
    """The largest task of its kind that a node could hold when nothing else runs there, and where; empty if there is none."""
    alike: dict[
        str, tuple[float, int, str]
    ] = {}  # by what it would have to ask for: the part given up, nodes, one of them
    for group in groups:
        node = emptied(group.first)
        less, given_up = [], 0.0
        for amount in amounts_of(request):
            most = amount.rounded(max(0, amount.free(node)))
            if not most:
                break
            if most < amount.asked:
                less.append(f"{amount.tell(most)} instead of {amount.tell(amount.asked)}")
                given_up += (amount.asked - most) / amount.asked
        else:
            text = ", ".join(less)
            _, nodes, first = alike.get(text, (0.0, 0, node.id))
            alike[text] = given_up, nodes + len(group), first
    if not alike:
        return ""
    text, (_, nodes, first) = min(alike.items(), key=lambda item: (item[1][0], -item[1][1], item[0]))
    return f"the largest that could ever fit asks for {text}, on {first}{f' and {nodes - 1} more' if nodes > 1 else ''}"
