"""What jobs wait for that a gate holds back."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class Key(NamedTuple):
    """What a job waits for: `channel` is opened by events; of two jobs with the same `kind` on it either both may start or none.

    So a quota is a channel, and the request that it refused is a kind: a smaller one may still pass.
    """

    channel: Hashable
    kind: Hashable = None
