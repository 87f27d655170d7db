"""What has to become of every second of one schedule, by its `catch_up`, worked out anew from what the pages say.

A slot that is settled within the grace is fired. One that is later is missed if the policy keeps only later ones, and caught up
otherwise: which of the two follows from when it was settled, so there is one right answer to every slot.
"""

from __future__ import annotations

from hasched.model.schedule import CatchUp, ScheduleSpec, SlotOutcome

SECOND_MS = 1000


class Book:
    """Slots are whole seconds, without jitter, and their runs may overlap: so they are settled in their order."""

    def __init__(self, spec: ScheduleSpec, first_ms: int) -> None:
        self.next_ms = first_ms
        self.fired = self.caught_up = self.missed = self.extra = self.gaps = self.wrongly = 0
        self._spec = spec

    def settle(self, slot_ms: int, outcome: SlotOutcome, now_ms: int, number: int = 1, step_ms: int = 0) -> str:
        """Enter a slot, or several with one outcome; a sentence if that is not what should have become of them."""
        last_ms = slot_ms + (number - 1) * step_ms
        expected_ms, self.next_ms = self.next_ms, max(self.next_ms, last_ms + SECOND_MS)
        match outcome:
            case SlotOutcome.FIRED:
                self.fired += number
            case SlotOutcome.CAUGHT_UP:
                self.caught_up += number
            case SlotOutcome.MISSED:
                self.missed += number
        if slot_ms < expected_ms:
            self.extra += number
            return f"the slot {slot_ms} is {outcome.name}, and was settled before"
        if slot_ms > expected_ms or (number > 1 and step_ms != SECOND_MS):
            self.gaps += (slot_ms - expected_ms) // SECOND_MS
            return f"slots before {last_ms} are left out, from {expected_ms} on"
        if now_ms < last_ms:
            return f"the slot {last_ms} is {outcome.name} {last_ms - now_ms} ms before its time"
        right = self._due(last_ms, now_ms)  # of several the last is the nearest to being kept
        if outcome is right:
            return ""
        self.wrongly += number
        late = f"{now_ms - last_ms} ms late, with `catch_up: {self._spec.catch_up}`"
        return f"the slot {last_ms} is {outcome.name} and should be {right.name}: it is {late}"

    def _due(self, slot_ms: int, now_ms: int) -> SlotOutcome:
        """What a slot has to be that is settled now."""
        in_time_ms = now_ms - self._spec.grace_ms  # what was due before this is late
        if slot_ms >= in_time_ms:
            return SlotOutcome.FIRED
        later = (in_time_ms - 1 - slot_ms) // SECOND_MS  # late ones that are later than this one
        match self._spec.catch_up:
            case CatchUp.SKIP:
                kept = 0
            case CatchUp.LATEST:
                another_is_due = now_ms // SECOND_MS * SECOND_MS >= in_time_ms
                kept = 0 if another_is_due else 1
            case CatchUp.ALL:
                kept = self._spec.catch_up_limit
        return SlotOutcome.MISSED if later >= kept else SlotOutcome.CAUGHT_UP
