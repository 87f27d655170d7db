"""Patches: changes to the product's classes and modules that are taken back, in the reverse order, when they close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Patches:
    """`with Patches() as patches: patches.set(...)`."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, bool]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """`owner.name` is `value` until the end. `owner` is a class or module; the name must be there."""
        assert hasattr(owner, name), f"{owner} has no {name}: the mutant is out of date"
        own = name in vars(owner)
        self._undo.append((owner, name, vars(owner).get(name), own))
        setattr(owner, name, value)

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """`make` gets what is there and returns what takes its place."""
        self.set(owner, name, make(getattr(owner, name)))

    def __enter__(self) -> Patches:
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, value, own in reversed(self._undo):
            if own:
                setattr(owner, name, value)
            else:
                delattr(owner, name)
        self._undo.clear()
