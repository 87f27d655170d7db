"""Server-sent events: from lines to `EventView`s."""

from __future__ import annotations

import msgspec

from hasched.model.errors import HaschedError
from hasched.model.views import EventView

_decoder = msgspec.json.Decoder(EventView)


class EventLines:
    """Feed it lines without their ends; it returns an event when one is complete. Comments and other fields are skipped."""

    def __init__(self) -> None:
        self._data: list[bytes] = []

    def feed(self, line: bytes) -> EventView | None:
        """Raises HaschedError on data that is no event."""
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            return None
        if line or not self._data:
            return None
        text, self._data = b"\n".join(self._data), []
        try:
            return _decoder.decode(text)
        except msgspec.DecodeError as error:
            raise HaschedError(f"an event can't be understood: {error}", "is the manager older?") from None
