"""Promises that the log of events must keep: one outcome for every task, and no node promised to more than it can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from chaos.amounts import amounts_in
from chaos.checkers.capacity import Ledger
from chaos.checkers.outcomes import Outcomes, Task
from chaos.judging.evidence import Evidence, decide
from chaos.report.document import Verdict
from hasched.model.states import TaskState
from hasched.model.views import EventView


class _Log:
    """The events in their order, as the checkers take them."""

    def __init__(self, evidence: Evidence) -> None:
        self.outcomes = Outcomes()
        self.ledger = Ledger()
        self.ends: dict[int, list[str]] = {}  # of jobs
        self.granted = 0
        self.unknown: dict[int, None] = {}  # jobs of which nobody knows what they asked for
        self._evidence = evidence
        self._active: dict[Task, str] = {}
        self._counts: dict[int, int] = {}
        for node_id, amounts in evidence.record.offers.items():
            self.ledger.offers(node_id, amounts)
        whole = len(evidence.whole_events)
        for number, event in enumerate(evidence.record.events):
            self._take(event, whole=number < whole)

    @property
    def active(self) -> Mapping[Task, str]:
        """Tasks that hold resources after the last event, and on which node."""
        return self._active

    def _take(self, event: EventView, *, whole: bool) -> None:
        job_id, data = event.job_id or 0, event.data
        match event.type:
            case "JobSubmitted":
                self._counts[job_id] = int(data["count"])
            case "JobEnded":
                self.ends.setdefault(job_id, []).append(data["state"])
            case "JobCancelRequested" if not self._evidence.has_gaps:
                self._ended(job_id, data["indices"], TaskState.CANCELLED)
            case "JobDeadlineExceeded" if not self._evidence.has_gaps:
                self._ended(job_id, [], TaskState.DEADLINE_EXCEEDED)
            case "TasksScheduled":
                for index, attempt in zip(data["indices"], data["attempts"], strict=True):
                    self._scheduled((job_id, index), attempt, event.node_id or "", whole=whole)
            case "AttemptEnded":
                task = job_id, event.task_index or 0
                final = TaskState[data["task_state"]].final
                self.outcomes.attempt_ended(task, event.attempt or 0, data["task_state"] if final else None)
                self._active.pop(task, None)
                if whole:
                    self.ledger.released(task)
            case "NodeRegistered" if whole:
                self.ledger.offers(event.node_id or "", amounts_in(data["info"]["resources"]))
            case _:
                pass

    def _scheduled(self, task: Task, attempt: int, node_id: str, *, whole: bool) -> None:
        self.outcomes.attempt_began(task, attempt)
        self._active[task] = node_id
        if whole:
            self.granted += 1
            self.ledger.granted(node_id, task, self._amounts(task[0]))

    def _amounts(self, job_id: int) -> dict[str, int]:
        asked = self._evidence.asked.get(job_id)
        if asked is not None:
            return asked.amounts
        if job_id not in self._evidence.final.amounts:
            self.unknown[job_id] = None
        return self._evidence.final.amounts.get(job_id, {})

    def _ended(self, job_id: int, asked: list[int], end: TaskState) -> None:
        """The tasks that were waiting have ended with it: those that neither hold resources nor have ended before."""
        for index in asked or range(self._counts.get(job_id, 0)):
            task = job_id, index
            if task not in self._active and self.outcomes.of(task) is None:
                self.outcomes.task_ended(task, end.name)


def judge_log(evidence: Evidence) -> list[Verdict]:
    """Both read the same events, once."""
    log = _Log(evidence)
    return [_judge_outcomes(evidence, log), _judge_capacity(evidence, log)]


def _judge_outcomes(evidence: Evidence, log: _Log) -> Verdict:
    """Where events are missing, what two events or an event and the cluster say against each other counts all the same;
    that nothing tells of an outcome doesn't."""
    recorded = dict(_recorded(evidence))
    if evidence.has_gaps:
        recorded = {task: state for task, state in recorded.items() if log.outcomes.of(task) is not None}
    return decide(
        "one outcome",
        "every task reaches exactly one recorded outcome, and keeps it",
        f"{len(log.outcomes):,} outcomes in {len(evidence.record.events):,} events, {len(recorded):,} tasks at the end",
        looked=len(log.outcomes),
        wrong=[*log.outcomes.wrong, *log.outcomes.compare(recorded), *_wrong_ends(evidence, log)],
        undecided=[*evidence.gaps, *evidence.final.lacks("jobs", "tasks")],
    )


def _recorded(evidence: Evidence) -> Iterator[tuple[Task, str | None]]:
    """The tasks of this run as the cluster tells of them at the end; None where one has not ended."""
    for job in evidence.jobs.values():
        if job.count == 1:
            yield (job.id, 0), _final(next(iter(job.tasks), job.state))
    for task in evidence.final.tasks:
        if task.job_id in evidence.mine:
            yield (task.job_id, task.task_index), _final(task.state)


def _final(state: str) -> str | None:
    return state if TaskState[state].final else None


def _wrong_ends(evidence: Evidence, log: _Log) -> Iterator[str]:
    states = {job.id: job.state for job in evidence.jobs.values()}
    for job_id, ends in log.ends.items():
        if len(ends) > 1:
            yield f"job {job_id} ended {len(ends)} times: {', '.join(ends)}"
        if states.get(job_id, ends[-1]) != ends[-1]:
            yield f"job {job_id} ended as {ends[-1]}, and the cluster now says {states[job_id]}"


def _judge_capacity(evidence: Evidence, log: _Log) -> Verdict:
    """What tasks hold that were placed before the run began is not counted, so what is wrong is certain."""
    wrong = list(log.ledger.wrong)
    if not evidence.has_gaps:
        ended = {job.id for job in evidence.jobs.values() if _final(job.state)}
        wrong += [
            f"task {job_id}.{index} holds {node_id}, and its job has ended"
            for (job_id, index), node_id in log.active.items()
            if job_id in ended
        ]
    for node in evidence.final.nodes:
        held = node.allocated
        if held.cpu_milli or held.memory_bytes or held.gpus or held.countables or node.running:
            wrong.append(f"nothing is under way, and on {node.id} {node.running} attempts hold {held}")
    return decide(
        "capacity",
        "no node is promised to more than it has, and what has ended holds nothing",
        f"{log.granted:,} placements on {len(evidence.record.offers):,} nodes, {len(evidence.final.nodes):,} idle nodes",
        looked=log.granted,
        wrong=wrong,
        undecided=[
            *evidence.gaps,
            *evidence.final.lacks("nodes"),
            *(f"nobody knows what the tasks of job {job_id} asked for" for job_id in log.unknown),
        ],
    )
