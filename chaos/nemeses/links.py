"""Whose links go bad: shared by all nemeses that shape them."""

from __future__ import annotations

from itertools import combinations

from chaos.cluster.base import Link
from chaos.cluster.topology import between, both_ways
from chaos.stage import Stage


async def spoil(stage: Stage, link: Link, seconds: float) -> None:
    """All links of one host, or all between managers, are like `link` for so long. Raises Skipped."""
    managers, hosts = stage.cluster.managers, [*stage.cluster.managers, *stage.cluster.agents]
    if stage.chance.random() < 0.5:
        targets = managers
        pairs = both_ways(combinations(managers, 2))
    else:
        targets = [stage.chance.choice(hosts)]
        pairs = between(targets, hosts)
    async with stage.claim_links(pairs, *targets):
        stage.note(_describe(link))
        await stage.under(seconds, stage.cluster.network.shaped(pairs, link, seconds))


def _describe(link: Link) -> str:
    parts = {field: getattr(link, field) for field in link.__struct_fields__}
    return ", ".join(f"{field} {value:g}" for field, value in parts.items() if value)
