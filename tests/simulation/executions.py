"""What may happen to executions of workflows, judged by the events: who comes after whom, what was passed on, how each ended.

What can't run whole does not begin at all. Each task of an execution starts once, when those before it have ended as it wants,
and ends once; its jobs are made once and find what those before put out; an execution has one outcome, and nothing of it happens
afterwards. All anew in each round.
"""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.ids import AttemptId
from hasched.model.states import TaskState
from hasched.model.workflow import Role, TaskSpec, When, WorkflowSpec, plan_of
from hasched.statemachine import events as e
from hasched.statemachine import workflow_events as w
from hasched.statemachine.events import Event
from hasched.statemachine.execution import ExecutionState, RowState, read_parent

MET_BY = {
    When.OK: (RowState.SUCCEEDED,),
    When.FAILED: (RowState.FAILED, RowState.CANCELLED),
    When.ANY: (RowState.SUCCEEDED, RowState.FAILED, RowState.SKIPPED, RowState.CANCELLED),
}
SEEN = "SEEN"  # what a task finds of those before it


def output_of(attempt: AttemptId) -> str:
    """What an attempt of a simulated task puts out: no other does the same."""
    return ".".join(map(str, attempt))


class Told:
    """One execution, as far as events have told of it."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self.spec = spec
        self.states: dict[str, RowState] = {}  # of tasks that have begun or ended
        self.jobs: dict[tuple[str, int], int] = {}  # of each instance the one of this round, or that has stayed
        self.ended: ExecutionState | None = None

    def task(self, name: str) -> TaskSpec:
        return next(task for task in self.spec.tasks if task.name == name)

    @property
    def checks(self) -> list[str]:
        """Tasks without which no other begins."""
        return [task.name for task in self.spec.tasks if task.validates]

    @property
    def hopeless(self) -> str:
        """A task that asks for what no simulated node has."""
        asks = (task.name for task in self.spec.tasks if task.job is not None and task.job.resources.gpus)
        return next(asks, "")

    def jobs_of(self, name: str) -> list[int]:
        return [job_id for (task, _), job_id in sorted(self.jobs.items()) if task == name]


class Executions:
    """`wrong` are sentences. Events are to be told once, in their order."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.told: dict[int, Told] = {}
        self.waits_for: dict[int, list[AttemptId]] = {}  # by job, those that must have ended before it ran
        self._submissions: dict[str, int] = {}
        self._place: dict[int, tuple[int, str, int]] = {}  # of a job that has not ended
        self._winner: dict[int, AttemptId] = {}  # of a job that has succeeded

    def take(self, event: Event) -> None:
        match event:
            case w.ExecutionStarted():
                known = self._submissions.setdefault(event.submission_id, event.execution_id)
                if known != event.execution_id:
                    self.wrong.append(f"{event.submission_id} is execution {known} and {event.execution_id}")
                self.told[event.execution_id] = Told(plan_of(event.packed_spec).spec)
            case e.JobSubmitted() if (place := read_parent(event.parent)) is not None:
                self._made(event, *place)
            case e.AttemptEnded(task_state=TaskState.SUCCEEDED):
                self._winner[event.job_id] = AttemptId(event.job_id, event.index, event.attempt)
            case e.JobEnded():
                self._place.pop(event.job_id, None)
            case _ if (execution_id := getattr(event, "execution_id", 0)) in self.told:
                for sentence in self._find_faults(self.told[execution_id], event):
                    self.wrong.append(f"execution {execution_id}: {sentence}")

    def _find_faults(self, told: Told, event: Event) -> Iterator[str]:
        if told.ended is not None and not isinstance(event, w.ExecutionRetried):
            yield f"{type(event).__name__} after it had ended as {told.ended.name}"
        match event:
            case w.ExecutionTaskStarted():
                if event.task in told.states:
                    yield f"{event.task} starts, and is {told.states[event.task].name}"
                yield from _unmet(told, event.task)
                told.states[event.task] = RowState.RUNNING
            case w.ExecutionTaskEnded():
                if told.states.get(event.task, RowState.WAITING).final:
                    yield f"{event.task} ends as {event.state.name}, and was {told.states[event.task].name}"
                told.states[event.task] = event.state
                if told.task(event.task).validates and event.state is RowState.SUCCEEDED and told.hopeless:
                    yield f"{told.hopeless} was found fit, and there is no node for it"
                yield from self._short_of(told, event.task)
            case w.ExecutionStaged():
                told.states.update(dict.fromkeys(event.skipped, RowState.SKIPPED))
            case w.ExecutionRetried():
                if told.ended is None:
                    yield "it is begun again, and had not ended"
                self._begin_again(told, event)
            case w.ExecutionEnded():
                yield from self._left_open(told, event)
                told.ended = event.state
            case _:
                pass

    def _made(self, event: e.JobSubmitted, execution_id: int, name: str, instance: int) -> None:
        told, who = self.told[execution_id], f"execution {execution_id}: {name}[{instance}]"
        if told.ended is not None or told.states.get(name) is not RowState.RUNNING:
            self.wrong.append(f"{who} gets job {event.job_id}, and its task does not run")
        if any(told.states.get(check) is not RowState.SUCCEEDED for check in told.checks):
            self.wrong.append(f"{who} gets job {event.job_id}, and nobody has found that all of it can run")
        if (name, instance) in told.jobs:
            self.wrong.append(f"{who} has job {told.jobs[name, instance]}, and gets job {event.job_id}")
        told.jobs[name, instance] = event.job_id
        self._place[event.job_id] = execution_id, name, instance
        before = [told.spec.tasks[each.row].name for each in told.task(name).after]
        self.waits_for[event.job_id] = [
            self._winner[job_id] for each in before for job_id in told.jobs_of(each) if job_id in self._winner
        ]
        expected, found = self._seen_by(told, told.task(name)), event.spec.env.get(SEEN, "")
        if found != expected:
            self.wrong.append(f"{who} is to find {expected!r} of those before it, and finds {found!r}")

    def _seen_by(self, told: Told, task: TaskSpec) -> str:
        """What `seen` in workflows.py stands for."""
        seen = []
        for each in task.after:
            before = told.spec.tasks[each.row]
            if before.validates:
                continue
            if each.when is When.OK and not before.enough:
                winners = [self._winner.get(job_id) for job_id in told.jobs_of(before.name)]
                seen.append(",".join("nothing" if each is None else output_of(each) for each in winners))
            else:
                seen.append(told.states[before.name].name.lower())
        return "|".join(seen)

    def _short_of(self, told: Told, name: str) -> Iterator[str]:
        """A task has succeeded: so have all of its jobs, or enough of them."""
        if told.states[name] is RowState.SUCCEEDED:
            jobs, task = told.jobs_of(name), told.task(name)
            good = sum(job_id in self._winner for job_id in jobs)
            if good < (task.enough or len(jobs)):
                yield f"{name} succeeds, with {good} of its {len(jobs)} jobs"

    def _left_open(self, told: Told, event: w.ExecutionEnded) -> Iterator[str]:
        open_tasks = [
            task.name
            for task in told.spec.tasks
            if task.role is Role.MAIN and not told.states.get(task.name, RowState.WAITING).final
        ]
        if open_tasks:
            yield f"it ends as {event.state.name}, and {open_tasks[0]} has not ended"
        if any(place[0] == event.execution_id for place in self._place.values()):
            yield f"it ends as {event.state.name}, and a job of it has not ended"
        failed = [name for name, state in told.states.items() if state is RowState.FAILED]
        if event.state is ExecutionState.SUCCEEDED and failed:
            yield f"it succeeds, and {failed[0]} has failed"

    def _begin_again(self, told: Told, event: w.ExecutionRetried) -> None:
        told.ended = None
        others = [task.name for task in told.spec.tasks if task.role is not Role.MAIN]
        for name in (*event.anew, *others):
            told.states.pop(name, None)
            told.jobs = {place: job_id for place, job_id in told.jobs.items() if place[0] != name}
        for name in event.again:
            told.states[name] = RowState.RUNNING
            told.jobs = {
                place: job_id for place, job_id in told.jobs.items() if place[0] != name or job_id in self._winner
            }


def _unmet(told: Told, name: str) -> Iterator[str]:
    task = told.task(name)
    for each in task.after:
        before = told.spec.tasks[each.row].name
        state = told.states.get(before, RowState.WAITING)
        if state not in MET_BY[each.when]:
            yield f"{name} starts after {before} ({each.when}), which is {state.name}"
    if task.condition == "false":
        yield f"{name} starts, and its condition does not hold"
