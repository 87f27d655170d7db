"""Performs the commands of a transcript and tells what happened; the language is described in `test_transcripts.py`."""

from __future__ import annotations

from hasched.model.ids import TaskId
from hasched.model.spec import Resources
from hasched.model.states import EndKind, NodeState, TaskState
from hasched.model.units import parse_cpu_milli, parse_duration_ms
from hasched.model.wire import AttemptKey
from hasched.statemachine import events as e
from hasched.statemachine import queries
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import (
    AddManager,
    DeleteJob,
    DrainNode,
    EndQuarantine,
    Placement,
    PlacePlan,
    QuarantineNode,
    RecordManagers,
    RemoveManager,
    RemoveNode,
    ResumeJob,
    SetNodeEligibility,
    SetNodeState,
    SuspendJob,
    UndrainNode,
)
from hasched.statemachine.events import Event
from hasched.statemachine.manager import ManagerAddress
from hasched.statemachine.outcomes import PlanTaken, Rejected, ReportsTaken
from hasched.statemachine.state import Job
from tests.statemachine.machine import Machine, retries

LINE = "----"


class Storyteller:
    def __init__(self) -> None:
        self.machine = Machine()
        self.names: dict[int, str] = {}

    def retell(self, story: str) -> str:
        """The story with the answers that its commands get."""
        paragraphs = [paragraph for paragraph in story.strip().split("\n\n") if paragraph.strip()]
        return "\n\n".join(self._perform(paragraph) for paragraph in paragraphs) + "\n"

    def _perform(self, paragraph: str) -> str:
        lines = paragraph.split("\n")
        asked = lines[: lines.index(LINE)] if LINE in lines else lines
        commands = [line for line in asked if not line.startswith("#")]
        if not commands:
            return paragraph
        answer = [line for command in commands for line in self._do(command)]
        return "\n".join([*asked, LINE, *(answer or ["nothing"])])

    def _do(self, line: str) -> list[str]:
        verb, *words = line.split()
        plain = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        match verb:
            case "node":
                amounts = {name: int(value) for name, value in options.items()}
                return self._tell(self.machine.node(plain[0], **amounts))
            case "submit":
                return self._submit(plain[0], options)
            case "place":
                return self._place(plain)
            case "started" | "ended":
                return self._report(verb, plain, options)
            case "lost" | "unhealthy":
                state = NodeState.DISCONNECTED if verb == "lost" else NodeState.UNHEALTHY
                return self._tell(self.machine.do(SetNodeState(node_id=plain[0], state=state, reason="silent")))
            case "remove":
                return self._tell(self.machine.do(RemoveNode(node_id=plain[0], actor="ada")))
            case "cordon" | "uncordon":
                eligible = verb == "uncordon"
                return self._tell(
                    self.machine.do(SetNodeEligibility(node_id=plain[0], eligible=eligible, actor="ada", reason="fan"))
                )
            case "drain":
                wait_ms = parse_duration_ms(options["deadline"]) if "deadline" in options else None
                return self._tell(self.machine.do(DrainNode(node_id=plain[0], actor="ada", wait_ms=wait_ms)))
            case "undrain":
                return self._tell(self.machine.do(UndrainNode(node_id=plain[0], actor="ada")))
            case "quarantine":
                wait_ms = parse_duration_ms(options["for"])
                command = QuarantineNode(node_id=plain[0], reason="5 launches failed", wait_ms=wait_ms)
                return self._tell(self.machine.do(command))
            case "launched":
                return self._tell(self.machine.do(EndQuarantine(node_id=plain[0])))
            case "record-managers":
                members = tuple(ManagerAddress(name, *_addresses(name)) for name in plain)
                return self._tell(self.machine.do(RecordManagers(members=members)))
            case "add-manager":
                api_url, raft_address = _addresses(options.get("at", plain[0]))
                add = AddManager(manager_id=plain[0], actor="ada", api_url=api_url, raft_address=raft_address)
                return self._tell(self.machine.do(add))
            case "remove-manager":
                return self._tell(self.machine.do(RemoveManager(manager_id=plain[0], actor="ada")))
            case "managers":
                return [" ".join(self.machine.state.managers)]
            case "cancel":
                job, indices = self._tasks(plain)
                return self._tell(self.machine.cancel(job, *(indices if "." in plain[0] else ())))
            case "suspend" | "resume" | "delete":
                kind = {"suspend": SuspendJob, "resume": ResumeJob, "delete": DeleteJob}[verb]
                return self._tell(self.machine.do(kind(job_id=self._tasks(plain)[0].id, actor="ada")))
            case "wait":
                return self._tell(self.machine.wait(parse_duration_ms(plain[0])))
            case "show":
                return self._show(self._tasks(plain)[0])
            case _:
                raise AssertionError(f"no transcript knows {line!r}")

    def _submit(self, name: str, options: dict[str, str]) -> list[str]:
        job = self.machine.submit(
            name,
            name=name,
            count=int(options.get("count", 1)),
            max_running=int(options.get("max_running", 0)),
            not_before_after_ms=parse_duration_ms(options.get("not_before", "0s")),
            deadline_after_ms=parse_duration_ms(options.get("deadline", "0s")),
            resources=Resources(cpu_milli=parse_cpu_milli(options.get("cpu", "1"))),
            retries=retries(
                int(options.get("retries", 0)),
                node_lost=int(options.get("node_lost", 3)),
                initial_ms=parse_duration_ms(options.get("backoff", "0s")),
            ),
        )
        known = job.id in self.names
        self.names[job.id] = name
        return [f"known as job {job.id}"] if known else [f"JobSubmitted {name}"]

    def _place(self, words: list[str]) -> list[str]:
        *tasks, on, node_id = words
        assert on == "on"
        job, indices = self._tasks(tasks)
        return self._tell(self.machine.do(PlacePlan(placements=(Placement(job.id, node_id, indices),))))

    def _report(self, verb: str, words: list[str], options: dict[str, str]) -> list[str]:
        task, _, attempt = words[0].partition("/")
        job, (index,) = self._tasks([task])
        node_id = words[2] if len(words) > 2 else "n1"
        if verb == "started":
            return self._tell(self.machine.start(job, index, int(attempt), node_id))
        how = {
            "kind": EndKind[options.get("kind", "exited").upper()],
            "code": int(options.get("exit", 0)),
            "output": options.get("output", "").encode(),
        }
        return self._tell(self.machine.end(job, index, int(attempt), node_id, **how))

    def _tasks(self, words: list[str]) -> tuple[Job, tuple[int, ...]]:
        """`backup.0 backup.2` as that job and 0 and 2; without an index, 0."""
        name = words[0].partition(".")[0]
        job_id = next(number for number, one in self.names.items() if one == name)
        job = self.machine.state.jobs.get(job_id)
        assert job is not None, f"{name} is gone"
        return job, tuple(int(word.partition(".")[2] or 0) for word in words)

    # ── Telling ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, applied: Applied) -> list[str]:
        told = [line for event in applied.events if (line := self._event(event))]
        for outcome in applied.outcomes:
            match outcome:
                case Rejected():
                    told.append(f"rejected {outcome.code}: {outcome.cause}")
                case ReportsTaken(refused=(_, *_)):
                    told.append("refused " + " ".join(self._attempt(key) for key in outcome.refused))
                case PlanTaken(refused=refused) if refused:
                    told.append(f"refused {refused} of the plan")
                case _:
                    pass
        return told

    def _event(self, event: Event) -> str:
        kind = type(event).__name__
        match event:
            case e.TasksScheduled():
                keys = [
                    AttemptKey(event.job_id, index, attempt)
                    for index, attempt in zip(event.indices, event.attempts, strict=True)
                ]
                return f"{kind} {' '.join(map(self._attempt, keys))} on {event.node_id}"
            case e.AttemptStarted():
                return f"{kind} {self._attempt(event)} on {event.node_id}"
            case e.LateReportRefused():
                return f"{kind} {self._attempt(event)} on {event.node_id}: {event.state.name}"
            case e.AttemptEnded():
                return f"{kind} {self._attempt(event)} on {event.node_id}: {event.state.name}{self._next(event)}"
            case e.JobEnded():
                return f"{kind} {self.names[event.job_id]}: {event.state.name}"
            case e.JobCancelRequested():
                return f"{kind} {self.names[event.job_id]}: {event.cancelled} cancelled, {len(event.stopping)} stopping"
            case e.JobDeadlineExceeded():
                return f"{kind} {self.names[event.job_id]}: {event.ended} ended, {len(event.stopping)} stopping"
            case e.TasksEligible():
                return f"{kind} " + " ".join(self._task(event.job_id, index) for index in event.indices)
            case (
                e.JobSubmitted()
                | e.JobSuspended()
                | e.JobResumed()
                | e.JobDeleted()
                | e.JobExpired()
                | e.JobDue()
                | e.JobUpdated()
            ):
                return f"{kind} {self.names[event.job_id]}"
            case e.NodeStateChanged():
                return f"{kind} {event.node_id} {event.state}"
            case e.NodeDrainStarted():
                return f"{kind} {event.node_id}{self._until(event.deadline_ms)}"
            case e.NodeDrainExpired():
                return f"{kind} {event.node_id}: {event.attempts} to go"
            case e.NodeQuarantined():
                return f"{kind} {event.node_id}{self._until(event.until_ms)}, time {event.times}: {event.reason}"
            case (
                e.NodeCordoned()
                | e.NodeUncordoned()
                | e.NodeDrained()
                | e.NodeUndrained()
                | e.NodeOnProbation()
                | e.NodeQuarantineEnded()
                | e.NodePropertiesSet()
            ):
                return f"{kind} {event.node_id}"
            case e.NodeRegistered() | e.NodeRemoved():
                return f"{kind} {event.node_id}"
            case e.ManagersRecorded():
                return f"{kind} {' '.join(member.manager_id for member in event.managers)}"
            case e.ManagerAdded():
                return f"{kind} {event.manager_id} at {event.api_url} and {event.raft_address}"
            case e.ManagerRemoved():
                return f"{kind} {event.manager_id}"
            case e.SubmissionsForgotten():
                return f"{kind} {' '.join(event.submission_ids)}"
            case e.PolicyChanged() | e.PolicyDeleted():
                return f"{kind} {event.kind}/{event.name}"
            case e.OriginRecorded():
                return f"{kind} {event.origin}"
            case e.SlotFired():
                return f"{kind} {event.schedule}: {event.outcome.name}"
            case e.SlotsSkipped():
                return f"{kind} {event.schedule}: {event.count} {event.outcome.name}"
            case _ if hasattr(event, "schedule"):
                return f"{kind} {event.schedule}"
            case e.WeekBegan() | e.ClockStepped() | e.WatchStarted():
                return ""

    def _until(self, then_ms: int) -> str:
        return f" for {then_ms - self.machine.now_ms} ms" if then_ms else ""

    def _next(self, event: e.AttemptEnded) -> str:
        if event.task_state is not TaskState.PENDING:
            return ""
        wait_ms = event.not_before_ms - self.machine.now_ms if event.not_before_ms else 0
        return f", again in {wait_ms} ms" if wait_ms else ", again at once"

    def _task(self, job_id: int, index: int) -> str:
        many = self.machine.state.jobs[job_id].count > 1
        return self.names[job_id] + (str(TaskId(job_id, index)).removeprefix(str(job_id)) if many else "")

    def _attempt(self, key: AttemptKey | e.AttemptStarted | e.AttemptEnded | e.LateReportRefused) -> str:
        return f"{self._task(key.job_id, key.index)}/{key.attempt}"

    def _show(self, job: Job) -> list[str]:
        state = self.machine.state
        view = queries.job_view(state, job.id)
        assert view is not None
        told = [f"{view.name}: {view.state}" + (f", {view.reason.text}" if view.reason else "")]
        for index in range(job.count):
            task = queries.task_view(state, job.id, index)
            assert task is not None
            told.append(
                f"  {self._task(job.id, index)}: {task.state}" + (f", {task.reason.text}" if task.reason else "")
            )
            for attempt in task.attempts:
                late = f", reported {attempt.late_report.state} too late" if attempt.late_report else ""
                why = f" ({attempt.reason.text})" if attempt.reason else ""
                told.append(f"    attempt {attempt.attempt} on {attempt.node_id}: {attempt.state}{why}{late}")
        return told


def _addresses(host: str) -> tuple[str, str]:
    return f"https://{host}:7411", f"{host}:7412"
