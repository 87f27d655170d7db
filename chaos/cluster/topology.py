"""Who reaches whom: pairs to cut for the shapes that networks fall into. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from chaos.cluster.base import Pair


def both_ways(pairs: Iterable[Pair]) -> list[Pair]:
    return [way for one, other in pairs for way in ((one, other), (other, one))]


def between(some: Iterable[str], others: Sequence[str]) -> list[Pair]:
    """What to cut, both ways, so that nobody of `some` reaches anybody of `others`."""
    return both_ways((one, other) for one in some for other in others if one != other)


def all_but(links: Iterable[Pair], hosts: Sequence[str]) -> list[Pair]:
    """Every pair of `hosts`, both ways, that is not one of `links`."""
    kept = set(both_ways(links))
    return [(one, other) for one in hosts for other in hosts if one != other and (one, other) not in kept]


def chain(hosts: Sequence[str]) -> list[Pair]:
    """What to cut so that each host reaches its neighbours in this order only."""
    return all_but(pairwise(hosts), hosts)


def star(centre: str, hosts: Sequence[str]) -> list[Pair]:
    """What to cut so that all reach the centre and nobody else."""
    return all_but([(centre, host) for host in hosts if host != centre], hosts)
