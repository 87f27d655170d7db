"""Why a job's waiting tasks wait, in one line for lists (`reason`) and in full for who asks (`why`); and what there is."""

from __future__ import annotations

from hasched.scheduler.explain.classes import NodeClasses
from hasched.scheduler.explain.deadlines import find_late
from hasched.scheduler.explain.lacks import Known
from hasched.scheduler.explain.reason import pending_reason
from hasched.scheduler.explain.resources import show_resources
from hasched.scheduler.explain.why import count_ahead, explain_waiting, view_blocker

__all__ = [
    "Known",
    "NodeClasses",
    "count_ahead",
    "explain_waiting",
    "find_late",
    "pending_reason",
    "show_resources",
    "view_blocker",
]
