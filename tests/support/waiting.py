"""Who may start, said once more: from the events alone, by the words of docs/jobs.md and without the engine's tables.

It hears everything that happens, keeps what came of every job for ever, and complains of a task that starts too early.
"""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.spec import Condition, JobSpec
from hasched.model.states import ConditionKind, TaskState
from hasched.statemachine import events as e


class Reference:
    def __init__(self) -> None:
        self.specs: dict[int, JobSpec] = {}
        self.actors: dict[int, str] = {}
        self.submitted_ms: dict[int, int] = {}
        self.began_ms: dict[int, int] = {}
        self.ended: dict[int, tuple[TaskState, int]] = {}
        self.succeeded: dict[tuple[int, int], None] = {}
        self.failed: dict[tuple[int, int], None] = {}
        self.now_ms = 0

    def see(self, event: e.Event, now_ms: int) -> Iterator[str]:
        """Yields what is wrong with it."""
        self.now_ms = max(self.now_ms, now_ms)
        match event:
            case e.JobSubmitted(job_id=job_id):
                self.specs[job_id], self.actors[job_id] = event.spec, event.actor
                self.submitted_ms[job_id] = self.now_ms
            case e.JobEnded(job_id=job_id):
                self.ended[job_id] = (event.state, self.now_ms)
            case e.AttemptStarted(job_id=job_id):
                self._begin(job_id, event.started_ms)
            case e.AttemptEnded(job_id=job_id):
                self._begin(job_id, event.started_ms)
                if event.task_state.final:
                    good = event.task_state is TaskState.SUCCEEDED
                    (self.succeeded if good else self.failed)[job_id, event.index] = None
            case e.JobCancelRequested(job_id=job_id):
                stopping = dict.fromkeys(event.stopping)  # these end later
                for index in event.indices:
                    if index not in stopping:
                        self.failed.setdefault((job_id, index))
            case e.TasksScheduled(job_id=job_id):
                for index in event.indices:
                    if self.may_start(job_id, index) is not True:
                        yield f"task {job_id}.{index} is started before what it waits for"
            case _:
                pass

    def _begin(self, job_id: int, started_ms: int) -> None:
        """By the clock of its node, which may be wrong."""
        if started_ms:
            began_ms = max(self.submitted_ms[job_id], min(started_ms, self.now_ms))
            self.began_ms.setdefault(job_id, began_ms)

    def may_start(self, job_id: int, index: int) -> bool | None:
        """Whether the task's dependency holds; False: it never will, None: that is open."""
        dependency = self.specs[job_id].dependency
        if dependency is None:
            return True
        held = [self._holds(job_id, index, condition) for condition in dependency.conditions]
        if dependency.any_of:
            return True if True in held else None if None in held else False
        return False if False in held else None if None in held else True

    def _holds(self, job_id: int, index: int, condition: Condition) -> bool | None:
        other = condition.job_id
        state = self.ended[other][0] if other in self.ended else None
        match condition.kind:
            case ConditionKind.SINGLETON:
                mine = self._name_of(job_id)
                before = [each for each in self.specs if each < job_id and self._name_of(each) == mine]
                return all(each in self.ended for each in before) or None
            case ConditionKind.AFTER:
                ended_ms = self.ended[other][1] if state is not None else None
                began_ms = self.began_ms.get(other, ended_ms)
                return True if began_ms is not None and began_ms + condition.delay_ms <= self.now_ms else None
            case ConditionKind.AFTERANY:
                return None if state is None else True
            case ConditionKind.AFTEROK:
                return None if state is None else state is TaskState.SUCCEEDED
            case ConditionKind.AFTERNOTOK:
                return None if state is None else state is not TaskState.SUCCEEDED
            case ConditionKind.AFTERCORR:
                if (other, index) in self.succeeded:
                    return True
                return False if (other, index) in self.failed or state is not None else None

    def _name_of(self, job_id: int) -> tuple[str, str, str]:
        spec = self.specs[job_id]
        return spec.namespace, self.actors[job_id], spec.name
