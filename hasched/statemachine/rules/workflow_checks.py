"""Checks: whether the cluster could ever run a job, by all nodes that it knows as they are when nothing runs there.

A node that is away or takes no work now counts, for it may come back; what keeps the planner from a node only for now (other
tasks, rules toward them, a queue that is closed) doesn't matter. Managers hold their nodes in different orders, and all have to
come to the same words after the same number of looks: so nodes are looked at in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from hasched.model.constraints import compile_constraint
from hasched.model.eligibility import find_taint, is_in_pool
from hasched.model.spec import ANYWHERE, EVERY, JobSpec, PlacementRules, Resources
from hasched.model.words import none_of
from hasched.statemachine.capacity import room_when_empty, tell_most, tell_request
from hasched.statemachine.limits import Limits
from hasched.statemachine.node import Node
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import admission, jobs
from hasched.statemachine.state import State

MAX_LOOKS_PER_STEP = (
    20_000  # at nodes; what is left is looked at in the next step. Old logs replay with just this number
)
LOOKS_OF_JOB = 20  # that it costs at least
CHARS_A_LOOK = 16  # of constraints, which are asked of every node
MAX_LOOKS_OF_CONSTRAINTS = 200_000  # of a job: a step can't end within one. Where they cost more they are not looked at

_Shape: TypeAlias = tuple[PlacementRules | None, tuple[tuple[tuple[Resources, int], ...], ...]]


class Checks:
    """Those of one step. They only read the state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._looks = 0
        self._sorted: list[Node] | None = None
        self._blank: Limits | None = None
        self._lacks: dict[_Shape, str] = {}

    @property
    def spent(self) -> bool:
        """Whether this step has looked at enough."""
        return self._looks >= MAX_LOOKS_PER_STEP

    def find_lack(self, spec: JobSpec, actor: str) -> str:
        """Why no node could ever run such a job of an execution, or no limit ever let it; empty if it could run."""
        self._looks += LOOKS_OF_JOB
        resolved = jobs.resolve_class(self._state, spec)
        if isinstance(resolved, Rejected):
            return resolved.cause
        refused = admission.refuse(self._state, actor, resolved, self._unused_limits(), in_workflow=True)
        if refused is not None:
            return refused.cause
        rules = None if resolved.placement == ANYWHERE else resolved.placement
        shape = (rules, tuple(map(_merged, admission.options_of(resolved))))
        if shape not in self._lacks:
            self._lacks[shape] = self._lack_of(shape)
        return self._lacks[shape]

    def _unused_limits(self) -> Limits:
        """The limits as if nobody used anything: what they refuse then, they always do."""
        if self._blank is None:
            self._blank = self._state.usage.limits.blank()
        return self._blank

    def _nodes(self) -> list[Node]:
        if self._sorted is None:
            self._sorted = [node for _, node in sorted(self._state.nodes.items())]
        return self._sorted

    def _lack_of(self, shape: _Shape) -> str:
        rules, options = self._bounded(shape[0]), shape[1]
        if any(all(self._has_room(rules, *each) for each in wanted) for wanted in options):
            return ""
        nodes = self._nodes()
        self._looks += len(nodes)
        if not nodes:
            return "there is no node yet: no agent has come"
        admitted = [node for node in nodes if node.admits(rules)]
        if not admitted:
            return _tell_barred(nodes, ANYWHERE if rules is None else rules)
        request, times = next(each for each in options[0] if not self._has_room(rules, *each))
        may = "" if len(admitted) == len(nodes) else " that it may run on"
        also = ", nor what it would take instead" if len(options) > 1 else ""
        if times > 1 and (room := sum(room_when_empty(node, request, times) for node in admitted)):
            return f"{times} of its tasks start together, and empty nodes{may} have room for {room}{also}"
        return f"no node{may} has {tell_request(request)} in all{also}; {tell_most(request, admitted)}"

    def _bounded(self, rules: PlacementRules | None) -> PlacementRules | None:
        """What of the rules is looked at: however long they are, and however many nodes there are, a step ends."""
        if rules is None or not rules.constraints:
            return rules
        looks = len(self._nodes()) * (sum(map(len, rules.constraints)) // CHARS_A_LOOK)
        if looks > MAX_LOOKS_OF_CONSTRAINTS:
            return msgspec.structs.replace(rules, constraints=())
        self._looks += looks
        return rules

    def _has_room(self, rules: PlacementRules | None, request: Resources, times: int) -> bool:
        """Whether so many such tasks could run at once if nothing else did."""
        room = 0
        for node in self._admitting(rules):
            room += room_when_empty(node, request, times - room)
            if room >= times:
                return True
        return False

    def _admitting(self, rules: PlacementRules | None) -> Iterator[Node]:
        for node in self._nodes():
            self._looks += 1
            if node.admits(rules):
                yield node


def _merged(wanted: Sequence[tuple[Resources, int]]) -> tuple[tuple[Resources, int], ...]:
    """How many tasks of each request, each request once."""
    merged: dict[Resources, int] = {}
    for request, times in wanted:
        merged[request] = merged.get(request, 0) + times
    return tuple(merged.items())


def _tell_barred(nodes: Sequence[Node], rules: PlacementRules) -> str:
    """Which rule leaves none of the nodes; one by one, as each leaves fewer."""
    pools = "any pool" if EVERY in rules.pools else f"pool {' or '.join(rules.pools)}"
    in_pool = [node for node in nodes if is_in_pool(node.facts, rules)]
    if not in_pool:
        return f"{none_of(len(nodes), 'node')} is in {pools}"
    untainted = [node for node in in_pool if find_taint(node.facts, rules) is None]
    if not untainted:
        node = in_pool[0]
        whose = none_of(len(in_pool), "node")
        return f"{whose} of {pools} is without a taint that it doesn't tolerate; {node.id} has {find_taint(node.facts, rules)}"
    left = untainted
    for constraint in rules.constraints:
        holds = compile_constraint(constraint)
        left = [node for node in left if holds(node.facts)]
        if not left:
            return (
                f"this holds of {none_of(len(untainted), 'node')} of {pools}, with all else it asks for: {constraint}"
            )
    raise AssertionError("a node that no rule bars is admitted")
