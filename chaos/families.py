"""Kinds of nemeses, for choosing and for the report."""

from __future__ import annotations

from enum import StrEnum


class Family(StrEnum):
    PROCESS = "process"
    NETWORK = "network"
    DISK = "disk"
    CLOCK = "clock"
    AGENT = "agent"
    LOAD = "load"
    OPERATOR = "operator"
