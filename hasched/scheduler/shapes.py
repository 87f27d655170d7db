"""Shapes: everything that decides on which nodes one task fits.

Jobs with the same request, placement rules and time limit share one `Shape`, however many they are, of whichever queue and
priority. So what was found out for one of them ("these nodes, in this order", "nowhere") holds for all.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import msgspec

from hasched.model.spec import PlacementRules, Resources
from hasched.model.states import GpuLocality
from hasched.scheduler import filters, scorers
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.relations import Relation, RelationKind, relations_of

NEVER_MS = 2**62  # when a task without a time limit ends


class Traits(NamedTuple):
    """What filters and scorers of other packages read of a job."""

    filters: tuple[Hashable, ...] = ()
    scorers: tuple[Hashable, ...] = ()


NO_TRAITS = Traits()


def traits_of(job: Job) -> Traits:
    return Traits(tuple(each.reads(job) for each in filters.ADDED), tuple(each.reads(job) for each in scorers.ADDED))


class ShapeKey(NamedTuple):
    """What makes two shapes the same."""

    resources: Resources
    rules: PlacementRules | None
    limit_ms: int
    access: tuple[str, ...]
    relations: tuple[Relation, ...] = ()
    traits: Traits = NO_TRAITS


class Shape:
    """`limit_ms`: a task surely ends so long after its start, rounded up so that few shapes differ in it alone.

    `access` names the reservations that it may use. Shapes with the same `view_key` may use the same nodes, and would prefer
    the same if their requests were the same.
    """

    __slots__ = (
        "_wishes",
        "access",
        "is_spread",
        "key",
        "limit_ms",
        "number",
        "places",
        "relations",
        "requests",
        "resources",
        "rules",
        "traits",
        "view_key",
    )

    def __init__(self, key: ShapeKey, number: int) -> None:
        self.key = key
        self.number = number  # in the order of their first appearance
        self.resources = key.resources
        self.rules = key.rules
        self.limit_ms = key.limit_ms
        self.access = key.access
        # What a task may ask for instead, the preferred first; mostly there is one.
        self.requests = (key.rules.any_of if key.rules is not None else ()) or (key.resources,)
        self.relations = key.relations
        self.is_spread = any(each.kind is RelationKind.SPREAD for each in key.relations)
        self.places = tuple(dict.fromkeys(each.place for each in key.relations if each.place))
        self.traits = key.traits
        own = (
            filters.ADDED or scorers.ADDED or (key.rules is not None and key.rules.gpu_locality is not GpuLocality.ANY)
        )
        rules = key.rules
        self._wishes = bool(scorers.ADDED) or (
            rules is not None and (bool(rules.prefer) or rules.gpu_locality is not GpuLocality.ANY)
        )
        self.view_key: Hashable = (key.rules, key.access, self.places, key.traits, key.resources if own else None)

    def static_fit(self, node: Node) -> bool:
        """Whether a task may run on the node at all, by what doesn't change with its load. Asked once per node and change."""
        return node.admits(self.rules) and (
            not filters.ADDED or filters.is_accepted(node.facts, self.rules, self.resources, self.traits.filters)
        )

    def preference(self, node: Node) -> float:
        """How much less the node suits than others by what doesn't change with its load: added to its score, 0 is best."""
        if not self._wishes and not node.facts.taints:
            return 0.0
        return scorers.dislike(node.facts, self.rules, self.resources, self.traits.scorers)


class _Limits(msgspec.Struct):
    """What a shape needs of a spec; of the rest nothing is decoded."""

    timeout_ms: int = 0
    kill_grace_ms: int = 5_000


_limits_of = msgspec.msgpack.Decoder(_Limits).decode


def limit_of(job: Job) -> int:
    """How long after its start an attempt of the job has surely ended."""
    limits = _limits_of(job.packed_spec)
    return limits.timeout_ms + limits.kill_grace_ms if limits.timeout_ms else NEVER_MS


def rounded_up(limit_ms: int) -> int:
    """To two bits: 4, 5, 6, 7 times a power of two, so that each doubling has four lengths."""
    surplus = max(limit_ms.bit_length() - 3, 0)
    return -(-limit_ms >> surplus) << surplus


def rounded_down(limit_ms: int) -> int:
    """The largest that `rounded_up` leaves as it is, of those that are no larger."""
    surplus = max(limit_ms.bit_length() - 3, 0)
    return limit_ms >> surplus << surplus


class Shapes:
    """Each shape once."""

    def __init__(self) -> None:
        self._shapes: dict[ShapeKey, Shape] = {}
        self._made = 0

    def of(self, job: Job, access: tuple[str, ...] = ()) -> Shape:
        limit_ms = limit_of(job)
        key = ShapeKey(
            job.resources,
            job.placement,
            limit_ms if limit_ms == NEVER_MS else rounded_up(limit_ms),
            access,
            relations_of(job) if job.placement is not None else (),
            traits_of(job) if filters.ADDED or scorers.ADDED else NO_TRAITS,
        )
        shape = self._shapes.get(key)
        if shape is None:
            self._made += 1
            shape = self._shapes[key] = Shape(key, self._made)
        return shape

    def forget(self, shape: Shape) -> None:
        """Nothing of this shape waits any more."""
        self._shapes.pop(shape.key, None)

    def __len__(self) -> int:
        return len(self._shapes)
