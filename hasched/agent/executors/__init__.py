"""Executors: the ways to start a task. They run inside the supervisor, which is small and has one thread."""

from __future__ import annotations

from typing import Protocol

from hasched.agent.cgroups import Cgroup
from hasched.agent.protocol import LaunchJob, LaunchTask

CHECKPOINT = "checkpoint"  # in the attempt's directory: a task that writes to it has checkpointed then


class LaunchFailed(Exception):
    """The task never ran because of its job, anywhere; the message says why, for people."""


class NodeFailed(Exception):
    """The task never ran because of this node, and may well run on another."""


class Executor(Protocol):
    def start(self, job: LaunchJob, task: LaunchTask, directory: str, cgroup: Cgroup | None) -> int:
        """Start a task as the leader of its own session, and return its process id.

        `directory` is the attempt's own and exists; the streams go to `stdout` and `stderr` in it. Raises LaunchFailed,
        NodeFailed.
        """
        ...
