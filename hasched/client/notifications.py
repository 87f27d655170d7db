"""The synchronous client's calls about notifications."""

from __future__ import annotations

from collections.abc import Sequence

from hasched.client import notification_calls as calls
from hasched.client.wire import Wire
from hasched.model.notification_views import NotificationPage, NotificationView


class NotificationClient(Wire):
    """A part of `Client`."""

    def notifications(self) -> NotificationPage:
        """Who is told, and how much waits for each."""
        return self._do(calls.notifications())

    def notification(self, name: str, states: Sequence[str] = (), limit: int | None = None) -> NotificationView:
        """One of them with its latest deliveries, of all states or of these."""
        return self._do(calls.notification(name, states, limit))

    def retry_notification(self, name: str, deliveries: Sequence[int] = ()) -> NotificationView:
        """Try again what has failed, and now what waits; all of it, or these deliveries."""
        return self._do(calls.retry_notification(name, deliveries))

    def test_notification(self, name: str) -> NotificationView:
        """Send a notice that says only that somebody tries it: the first of the deliveries."""
        return self._do(calls.test_notification(name))
