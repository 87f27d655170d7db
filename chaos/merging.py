"""One sequence of events out of the streams of all managers.

Every manager tells the same events in the order of the log, each stream without gaps from where it was opened. So the first
event of any stream that nobody told before is the next one, provided that the stream has come past all that are known. And
what several tell must be the same, event by event: managers whose states differ tell of it.
"""

from __future__ import annotations

from typing import TypeAlias

from chaos.record import Record
from hasched.model.views import EventView

EventKey: TypeAlias = tuple[int, int]


def _key(event_id: str) -> EventKey:
    """By which ids are ordered."""
    index, _, number = event_id.partition(".")
    return int(index), int(number)


class Merge:
    """Into `record.events`."""

    def __init__(self, record: Record, after_id: str) -> None:
        self._record = record
        self._last_id = after_id
        self._places: dict[str, int] = {}  # by manager: how many of the events its stream has come past
        self._gaps: list[int] = []  # places in front of which events are missing

    @property
    def last_id(self) -> str:
        """A stream that is opened behind this event goes on where the record ends."""
        return self._last_id

    def opened(self, manager: str) -> None:
        """Its stream begins behind `last_id`."""
        self._places[manager] = len(self._record.events)

    def take(self, manager: str, event: EventView) -> None:
        """The next event of this manager's stream."""
        events = self._record.events
        place = self._places[manager]
        if place == len(events) and _key(event.id) <= _key(self._last_id):
            return  # of a gap: what is missing there stays missing, since it would be told only in part
        if place == len(events):
            events.append(event)
            self._last_id = event.id
            self._places[manager] = place + 1
        elif event == events[place]:
            self._places[manager] = place + 1
        elif place not in self._gaps or _key(event.id) > _key(events[place].id):
            self._contradict(manager, event, place)

    def _contradict(self, manager: str, event: EventView, place: int) -> None:
        known = self._record.events[place]
        self._record.contradictions.append(
            f"{manager} tells of {event.type} {event.id} where another manager told of {known.type} {known.id}"
            if (event.id, event.type) != (known.id, known.type)
            else f"{manager} tells of {event.type} {event.id} otherwise than another manager: {event} and {known}"
        )
        later = (n for n in range(place, len(self._record.events)) if _key(self._record.events[n].id) > _key(event.id))
        self._places[manager] = next(later, len(self._record.events))

    def gap(self, next_id: str, why: str) -> None:
        """Events up to `next_id` may have happened that nobody can tell of any more. Streams must be opened anew."""
        self._record.event_gaps.append(f"between {self._last_id} and {next_id}: {why}")
        place = len(self._record.events)
        self._gaps.append(place)
        if self._record.whole_events is None:
            self._record.whole_events = place
        self._last_id = next_id
