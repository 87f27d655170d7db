"""What keeps a task from starting: a code, a sentence, how many nodes it concerns, and what would lift it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from hasched.model.reasons import ReasonCode


class Target(StrEnum):
    """What a change is made to."""

    JOB = "job"  # `key` is a key of its document, with dots: resources.cpu
    NODE = "node"  # `key` is what the node would need more of, or another state
    POLICY = "policy"  # `key` is KIND/NAME.FIELD of a policy
    TIME = "time"  # nothing but waiting: `value` is when, in ms


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """The smallest change that lifts a blocker. `value` would stand at `key` of the target; None: the key is left out."""

    text: str  # what to do, as one says it: "ask for 4 CPU at most"
    target: Target = Target.JOB
    key: str = ""
    value: Any = None


class Blocker(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reason why a task waits. `nodes`: how many nodes it rules out; 0 where it isn't about nodes."""

    code: ReasonCode
    text: str
    nodes: int = 0
    change: Change | None = None
