"""The attempts, as the agent's core knows them."""

from __future__ import annotations

from enum import IntEnum

from hasched.model.ids import AttemptId, TaskId
from hasched.model.spec import JobSpec
from hasched.model.wire import AttemptCheckpointed, AttemptEnded, AttemptStarted


class Phase(IntEnum):
    SAVING = 0  # its row is on the way to the disk
    READY = 1  # may start as soon as the supervisor, its GPUs and its task are free
    LAUNCHED = 2  # the supervisor was told
    RUNNING = 3
    ENDED = 4  # waits for a manager's acknowledgement


class Attempt:
    """One attempt that no manager has acknowledged as ended."""

    __slots__ = (
        "checkpoint", "doubted", "ended", "ended_at_ms", "env", "frozen", "held", "hostfile", "key", "lost_device", "older",
        "phase", "spec", "start_known", "started", "stop", "stop_signal", "stop_warning_ms", "supervisor", "units",
    )  # fmt: skip

    def __init__(self, key: AttemptId, phase: Phase, supervisor: str = "", spec: JobSpec | None = None) -> None:
        self.key = key
        self.phase = phase
        self.supervisor = supervisor  # the instance that was told to run it
        self.spec = spec  # until it is launched
        self.older: tuple[AttemptId, ...] = ()  # attempts of the same task that must end first
        self.units: tuple[str, ...] = ()  # of devices, bound to it
        self.lost_device = ""  # which of them has disappeared
        self.doubted: AttemptEnded | None = None  # its end, until it is known whether a device was lost
        self.frozen: bool | None = None  # what a manager wants; None: this agent heard nothing of it
        self.stop = ""  # why it is being stopped
        self.stop_signal = ""  # that warns it
        self.stop_warning_ms = 0
        self.env: dict[str, str] = {}  # of its own, until it is launched
        self.hostfile = ""  # of its gang, likewise
        self.checkpoint: AttemptCheckpointed | None = None  # the latest that it has told of
        self.started: AttemptStarted | None = None
        self.start_known = False  # a manager has acknowledged the start
        self.ended: AttemptEnded | None = None
        self.ended_at_ms = 0  # on the clock of Now.boot_ms
        self.held = False  # the supervisor keeps its end


class Attempts(dict[AttemptId, Attempt]):
    """All of them by id, and which of a task's is the newest. Attempts come by `learn` and go by `unlearn`."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: dict[TaskId, AttemptId] = {}

    def latest(self, task: TaskId) -> AttemptId | None:
        """The newest attempt of a task, as far as is known here."""
        return self._latest.get(task)

    def learn(self, attempt: Attempt) -> None:
        key = attempt.key
        self[key] = attempt
        task = TaskId(key.job_id, key.index)
        known = self._latest.get(task)
        if known is None:
            self._latest[task] = key
        elif known.attempt < key.attempt:
            attempt.older = (known, *self[known].older)
            self._latest[task] = key
        else:
            self[known].older += (key,)

    def unlearn(self, attempt: Attempt) -> None:
        """Let go of an attempt. An older one of its task may still be here, and the next must wait for its end."""
        del self[attempt.key]
        task = TaskId(attempt.key.job_id, attempt.key.index)
        if self._latest.get(task) == attempt.key:
            left = [older for older in attempt.older if older in self]
            if left:
                self._latest[task] = max(left)
            else:
                del self._latest[task]
