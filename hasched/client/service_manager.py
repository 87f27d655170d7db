"""What a daemon tells systemd, if systemd asked for it (sd_notify(3)): that it is ready, stopping, and still alive."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(state: str) -> None:
    """Send `READY=1`, `STOPPING=1` or the like to the service manager; without one, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
            endpoint.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def feed_watchdog() -> None:
    """Show that the loop still turns, twice in each of the watchdog's intervals; return at once if there is no watchdog."""
    interval_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    while interval_us:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_us / 2_000_000)
