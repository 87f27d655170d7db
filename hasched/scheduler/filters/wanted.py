"""What filters and scorers look at of a task, and a base for those that look at nothing else."""

from __future__ import annotations

from typing import NamedTuple

from hasched.model.spec import PlacementRules, Resources
from hasched.statemachine.job import Job


class Wanted(NamedTuple):
    request: Resources
    rules: PlacementRules


class Plain:
    """Of a job it reads nothing but request and rules."""

    def reads(self, job: Job) -> None:
        return None
