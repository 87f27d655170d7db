"""The digest: managers that have applied the same log have the same one, and any difference in state changes it."""

from __future__ import annotations

import hashlib

from hasched.statemachine.snapshot import records
from hasched.statemachine.state import State


def digest(state: State) -> str:
    """BLAKE2b over the canonical snapshot, in hex; costs an encoding of the whole state."""
    hasher = hashlib.blake2b(digest_size=32)
    for record in records(state):
        hasher.update(record)
    return hasher.hexdigest()
