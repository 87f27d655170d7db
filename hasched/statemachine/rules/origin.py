"""The origin: an id that the cluster's first leader draws, by which agents tell this cluster from another of the same name.

It never changes. See docs/adr/0014-cluster-origin.md.
"""

from __future__ import annotations

from hasched.model.ids import is_name
from hasched.statemachine.commands import RecordOrigin
from hasched.statemachine.events import OriginRecorded
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import Decision
from hasched.statemachine.state import State


def decide_record(state: State, command: RecordOrigin) -> Decision | Rejected:
    """A second one, of a leader that didn't know of the first, comes too late and changes nothing."""
    if state.origin:
        return Decision([])
    if not is_name(command.origin):
        return Rejected("invalid_origin", f"{command.origin[:100]!r} can't be a cluster's origin")
    return Decision([OriginRecorded(command.origin)])


def evolve_recorded(state: State, event: OriginRecorded) -> None:
    state.origin = event.origin
