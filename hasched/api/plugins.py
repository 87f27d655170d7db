"""Filters and scorers that other packages bring: entry points of the groups `hasched.filters` and `hasched.scorers`.

Each is `NAME = package.module:object`, the object a filter or scorer or something that makes one when it is called without
arguments. They are loaded when a process that plans starts, before it does anything else. One that can't be used is not
passed over: a cluster that places without a filter that it was given places wrongly, so the manager doesn't start.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

from hasched.model.errors import FieldError
from hasched.scheduler import filters, scorers

FILTERS = "hasched.filters"
SCORERS = "hasched.scorers"


def load_plugins() -> list[FieldError]:
    """Add everything that is installed, in the order of its names. Returns what can't be used, by `GROUP.NAME`."""
    faults: list[FieldError] = []
    filters.ADDED[:] = _load(FILTERS, ("reads", "accepts"), faults)
    scorers.ADDED[:] = _load(SCORERS, ("reads", "dislike"), faults)
    return faults


def _load(group: str, methods: tuple[str, ...], faults: list[FieldError]) -> list[Any]:
    found: dict[str, Any] = {}
    targets: dict[str, str] = {}
    for point in sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value)):
        place = f"{group}.{point.name}"
        if targets.setdefault(point.name, point.value) != point.value:
            faults.append(FieldError(place, f"{targets[point.name]} and {point.value} both have this name"))
            continue
        try:
            plugin = point.load()
            if not all(hasattr(plugin, each) for each in ("name", *methods)) or isinstance(plugin, type):
                plugin = plugin()
        except Exception as error:  # Whatever that package does, it is not ours to fall over.
            faults.append(FieldError(place, f"{point.value} can't be loaded: {error!r}", "repair or uninstall it"))
            continue
        lacking = [each for each in methods if not isinstance(getattr(plugin, each, None), Callable)]  # type: ignore[arg-type]
        if lacking or not isinstance(getattr(plugin, "name", None), str):
            faults.append(FieldError(place, f"{point.value} has no {lacking[0] if lacking else 'name'}"))
        else:
            found[point.name] = plugin
    return list(found.values())
