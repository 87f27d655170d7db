"""Wishes: how much worse a place is by a relation that needn't hold."""

from __future__ import annotations

from hasched.statemachine.relations import Relation, RelationKind, holds

WHOLE_WEIGHT = 100  # a wish of this weight counts as much as the difference between a full and an empty node


def penalty(relation: Relation, here: int | None, total: int, floor: int) -> float:
    """How much worse a place is by a wish, in the unit of scores."""
    weight = relation.weight / WHOLE_WEIGHT
    if relation.kind is RelationKind.SPREAD and here is not None:
        return weight * (here - floor) / relation.max_skew
    return 0.0 if holds(relation, here, total, floor) else weight
