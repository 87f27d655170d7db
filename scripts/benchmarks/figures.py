"""Small statistics and the table that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of at least one value."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def render(results: Mapping[str, object], limits: Mapping[str, str]) -> str:
    """A two- or three-column text table: the key, its figure, and its ratio to the machine's limit where it has one."""
    rows = []
    for key, value in flatten(results):
        ratio = ""
        limit = results.get(limits.get(key, ""))
        if isinstance(value, int | float) and isinstance(limit, int | float) and limit:
            ratio = f"{value / limit:.3f} of {limits[key]}"
        text = "not installed" if value is None else f"{value:,.3g}" if isinstance(value, float) else str(value)
        if isinstance(value, float) and value >= 100:
            text = f"{value:,.0f}"
        rows.append((key, text, ratio))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{key:<{width}}  {text:>14}  {ratio}".rstrip() for key, text, ratio in rows)


def flatten(results: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat += flatten(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat
