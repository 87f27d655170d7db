"""Why a job's waiting tasks wait: in one line for lists (`reason`), and in full for who asks."""

from __future__ import annotations

from hasched.scheduler.explain.reason import pending_reason

__all__ = ["pending_reason"]
