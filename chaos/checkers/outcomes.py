"""Outcomes: every task gets one, once, and it never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Task: TypeAlias = tuple[int, int]  # job id, index


class Outcomes:
    """Fed with the ends of attempts in the order of the log, each entry once. `wrong` is what was found so far."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._final: dict[Task, str] = {}
        self._attempts: dict[Task, int] = {}  # the latest that was ended

    def __len__(self) -> int:
        return len(self._final)

    def of(self, task: Task) -> str | None:
        """None if it has not ended."""
        return self._final.get(task)

    def attempt_ended(self, task: Task, attempt: int, outcome: str | None) -> None:
        """An attempt's end was recorded. `outcome` is the task's, None if it will be tried again."""
        latest = self._attempts.get(task, 0)
        if attempt <= latest:
            self.wrong.append(f"{_name(task)}: the end of attempt {attempt} is recorded after that of attempt {latest}")
        self._attempts[task] = max(attempt, latest)
        if outcome is not None:
            self.task_ended(task, outcome)
        elif task in self._final:
            self.wrong.append(f"{_name(task)} ended as {self._final[task]}, and attempt {attempt} ended after that")

    def task_ended(self, task: Task, outcome: str) -> None:
        known = self._final.setdefault(task, outcome)
        if known != outcome:
            self.wrong.append(f"{_name(task)} ended as {known} and then as {outcome}")

    def reopened(self, task: Task) -> None:
        """A task of a gang had succeeded, and starts again with the others: its success wasn't the gang's."""
        if self._final.pop(task, None) != "SUCCEEDED":
            self.wrong.append(f"{_name(task)} starts again with its gang, and had not succeeded")

    def attempt_began(self, task: Task, attempt: int) -> None:
        if task in self._final:
            self.wrong.append(f"{_name(task)} ended as {self._final[task]}, and attempt {attempt} began after that")

    def compare(self, recorded: Mapping[Task, str | None]) -> list[str]:
        """Against the final state of the cluster: outcomes by task, None for one that has none yet."""
        wrong = [
            f"{_name(task)} ended as {outcome}, and the cluster now says {recorded[task] or 'that it has not ended'}"
            for task, outcome in self._final.items()
            if task in recorded and recorded[task] != outcome
        ]
        return wrong + [
            f"{_name(task)} is {outcome}, and nothing says how it came to that"
            for task, outcome in recorded.items()
            if outcome is not None and task not in self._final
        ]


def _name(task: Task) -> str:
    return f"task {task[0]}.{task[1]}"
