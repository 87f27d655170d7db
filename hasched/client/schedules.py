"""The synchronous client's calls about schedules."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.client import schedule_calls as calls
from hasched.client.calls import Document
from hasched.client.wire import Wire
from hasched.model.schedule_views import BackfillView, Preview, ScheduleView, SlotPage


class ScheduleClient(Wire):
    """A part of `Client`."""

    def schedules(self, namespace: str | None = None) -> Iterator[ScheduleView]:
        """Every schedule, by name."""
        cursor = ""
        while True:
            page = self._do(calls.schedules(namespace, cursor, None))
            yield from page.schedules
            cursor = page.next_cursor
            if not cursor:
                return

    def schedule(self, name: str) -> ScheduleView:
        return self._do(calls.schedule(name))

    def put_schedule(self, name: str, document: Document, if_index: int | None = None) -> ScheduleView:
        """Put a schedule whole. `if_index`: only if its `log_index` is still this, 0: only if it is new. Raises Conflict,
        ScheduleInvalid."""
        return self._do(calls.put_schedule(name, document, if_index))

    def delete_schedule(self, name: str) -> None:
        """Delete a schedule and its ledger; its jobs go on."""
        self._do(calls.delete_schedule(name))

    def pause_schedule(self, name: str, reason: str = "") -> ScheduleView:
        """Skip its slots until it is resumed."""
        return self._do(calls.pause_schedule(name, reason))

    def resume_schedule(self, name: str) -> ScheduleView:
        return self._do(calls.resume_schedule(name))

    def slots(self, name: str, limit: int | None = None) -> SlotPage:
        """What became of its latest slots, and which are to come."""
        return self._do(calls.slots(name, limit))

    def preview_schedule(self, name: str, count: int | None = None, after_ms: int | None = None) -> Preview:
        """The next slots."""
        return self._do(calls.preview_schedule(name, count, after_ms))

    def backfill_schedule(
        self, name: str, from_ms: int, until_ms: int, *, again: bool = False, dry_run: bool = False
    ) -> BackfillView:
        """Fire the slots from one time to before another that were not fired. `again`: those that were, too."""
        return self._do(calls.backfill_schedule(name, from_ms, until_ms, again, dry_run))

    def schedule_calendar(self, name: str | None = None) -> str:
        """The slots to come of a schedule, or of all, as iCalendar."""
        return self._do(calls.schedule_calendar(name))
