"""What both daemons share: logs for the journal, and what systemd wants to hear (sd_notify(3))."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import traceback
from typing import Any

import msgspec
import structlog

LEVELS = ("debug", "info", "warning", "error", "critical")


def configure_logs(usual: str = "info") -> None:
    """Log to stderr: `time level event key=value …` a line, or JSON with HASCHED_LOG_FORMAT=json.

    The level is HASCHED_LOG_LEVEL, else `usual`.

    A traceback is one field, and never shows the values of variables: they may be secrets.
    """
    level = os.environ.get("HASCHED_LOG_LEVEL", usual).lower()
    as_json = os.environ.get("HASCHED_LOG_FORMAT", "text") == "json"
    renderer: Any = (
        structlog.processors.JSONRenderer(
            serializer=lambda fields, **_: msgspec.json.encode(fields, enc_hook=str).decode()
        )
        if as_json
        else structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"], bool_as_flag=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _render_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level if level in LEVELS else "info"),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="time=%(asctime)s level=%(levelname)s event=%(message)s"
    )


def _render_exception(_logger: Any, _method: str, fields: Any) -> Any:
    error = fields.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        fields["traceback"] = "".join(traceback.format_exception(error))
    return fields


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
