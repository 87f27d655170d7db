"""Placement rules as a person reads them, a line for each sort."""

from __future__ import annotations

from hasched.cli.output import resources
from hasched.model.spec import DEFAULT_POOL, JobAffinity, PlacementRules, Spread
from hasched.model.states import GpuLocality
from hasched.model.taints import format_toleration


def placement_fields(rules: PlacementRules) -> list[tuple[str, str]]:
    """What isn't as everywhere."""
    wishes = [f"{each.nodes} ({each.weight:+})" for each in rules.prefer]
    return [
        ("alternatives", "\n".join(map(resources, rules.any_of[1:]))),
        ("resource class", rules.resource_class),
        ("pool", ", ".join(rules.pools) if rules.pools != (DEFAULT_POOL,) else ""),
        ("constraints", "\n".join(rules.constraints)),
        ("better nodes", "\n".join(wishes)),
        ("near", "\n".join(map(_affinity, rules.near))),
        ("apart from", "\n".join(map(_affinity, rules.apart))),
        ("spread", "\n".join(map(_spread, rules.spread))),
        ("tolerates", ", ".join(map(format_toleration, rules.tolerations))),
        ("GPU locality", rules.gpu_locality.value if rules.gpu_locality is not GpuLocality.ANY else ""),
    ]


def _affinity(affinity: JobAffinity) -> str:
    """`name=db app=web within rack (+50)`."""
    jobs = affinity.jobs
    words = [f"name={jobs.name}"] if jobs.name else []
    words += [f"{name}={value}" for name, value in jobs.labels]
    return f"{' '.join(words) or 'itself'} within {affinity.within or 'a node'}{_weight(affinity.weight)}"


def _spread(spread: Spread) -> str:
    return f"over {spread.label or 'nodes'}, skew {spread.max_skew}{_weight(spread.weight)}"


def _weight(weight: int) -> str:
    return f" ({weight:+})" if weight else ""
