"""The rules, one module a noun: `decide_…` reads the state and says what would happen, `evolve_…` makes it so.

A `decide` never writes, so a refusal has changed nothing; an `evolve` never refuses, so what was decided happens.
"""

from __future__ import annotations

from typing import NamedTuple

from hasched.statemachine.events import Event
from hasched.statemachine.outcomes import Done, Outcome

DONE = Done()


class Decision(NamedTuple):
    """What a command makes happen, and what its sender is told."""

    events: list[Event]
    outcome: Outcome = DONE
