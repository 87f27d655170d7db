"""Amounts of resources by name, as the checkers of capacity take them; what is not asked for is left out."""

from __future__ import annotations

from typing import Any

import msgspec

from hasched.model.spec import Resources


def amounts_of(resources: Resources) -> dict[str, int]:
    """CPU in thousandths of a core, memory in bytes."""
    named = {"cpu_milli": resources.cpu_milli, "memory_bytes": resources.memory_bytes, "gpus": resources.gpus}
    return {name: amount for name, amount in (named | dict(resources.countables)).items() if amount}


def amounts_in(shown: Any) -> dict[str, int]:
    """The same of resources as an event shows them."""
    return amounts_of(msgspec.convert(shown, Resources))
