"""What an agent tells its supervisor, obeyed in order: launches may wait, but nothing that could concern them passes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import assert_never

from hasched.agent.protocol import (
    Configure,
    Forget,
    FreezeAttempts,
    Launch,
    LaunchJob,
    LaunchTask,
    Lease,
    StopAttempts,
    ToSupervisor,
)
from hasched.agent.supervised import Supervised


class Orders:
    """`configure` is the supervisor's own answer to Configure: it knows what the settings are for."""

    def __init__(self, supervised: Supervised, configure: Callable[[Configure], None]) -> None:
        self._supervised = supervised
        self._configure = configure
        self._launching: deque[tuple[LaunchJob, LaunchTask]] = deque()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many launches wait."""
        return len(self._launching)

    def obey(self, message: ToSupervisor) -> None:
        match message:
            case Launch(jobs=jobs):
                if not self._closed:
                    self._launching.extend((job, task) for job in jobs for task in job.tasks)
            case Forget(attempts=keys):
                self._supervised.forget(keys)
            case Lease():
                self._supervised.renew(message)
            case StopAttempts(attempts=keys, reason=reason):
                self.launch(self.waiting)
                self._supervised.stop(keys, reason, message.signal, message.warning_ms)
            case FreezeAttempts(attempts=keys, frozen=frozen):
                self.launch(self.waiting)
                self._supervised.freeze(keys, frozen)
            case Configure():
                self.launch(self.waiting)
                self._configure(message)
            case _:
                assert_never(message)

    def launch(self, most: int) -> None:
        for _ in range(min(most, len(self._launching))):
            self._supervised.launch(*self._launching.popleft())

    def close(self) -> None:
        """Launch nothing more."""
        self._closed = True
        self._launching.clear()
