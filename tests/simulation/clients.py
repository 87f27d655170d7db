"""Clients of a simulated cluster: what they ask, of whom, and what they write down about it.

Each is a process on a host of its own, with a right clock, and asks over the same network as everybody. It knows what
any user of the API knows: the submission id that it made, the job id that it was told, and whether a call returned, failed,
or ended without saying what it did.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from chaos.checkers.history import Ending, History
from chaos.checkers.models import Accepted, Done, Refused, Seen
from hasched.model.errors import HaschedError, NoLeader, OutcomeUnknown
from hasched.model.spec import JobSpec
from hasched.raft.replica import Replica
from hasched.statemachine import outcomes
from hasched.statemachine.commands import (
    CancelJob,
    Command,
    DeleteJob,
    PreemptTasks,
    ResumeJob,
    SubmitJob,
    SuspendJob,
)
from hasched.statemachine.outcomes import JobAccepted, Outcome, Rejected
from hasched.statemachine.state import State
from hasched.statemachine.waits import ACTOR
from tests.simulation.clocks import HostClock
from tests.simulation.loop import HostLoop
from tests.simulation.manager import ask
from tests.simulation.network import Certificate

if TYPE_CHECKING:
    from tests.simulation.options import Options
    from tests.simulation.world import World

ANSWER_S = 12.0  # a client waits so long for an answer, and then doesn't know
CHANGES = {"cancel": CancelJob, "suspend": SuspendJob, "resume": ResumeJob, "delete": DeleteJob}


class Record:
    """What all clients of a run saw. `jobs` are those that anybody was told of, by submission id."""

    def __init__(self, world: World) -> None:
        self.clock = HostClock(world, world.stream("clients"))  # one for all clients, so that their times compare
        self.history = History()
        self.jobs: dict[str, int] = {}
        self.specs: dict[str, JobSpec] = {}
        self.acknowledged: dict[str, int] = {}
        self.wrong: list[str] = []
        self.answered_at = 0.0  # when a command was last acknowledged, in the world's time
        self.asked = 0
        self.returned = 0

    def refused(self) -> list[str]:
        """Submissions of which every try failed: nothing may have come of them."""
        tries: dict[str, list[Ending]] = {}
        for operation in self.history.operations():
            if operation.kind == "submit":
                tries.setdefault(operation.key, []).append(operation.ending)
        return [name for name, endings in tries.items() if all(ending is Ending.FAILED for ending in endings)]

    def learn(self, submission_id: str, job_id: int, whence: str) -> None:
        known = self.jobs.setdefault(submission_id, job_id)
        if known != job_id:
            self.wrong.append(f"{whence} says that {submission_id} is job {job_id}; before it was job {known}")


class Client:
    """One user. `run` goes on until `stop`; then it finishes what it has begun."""

    def __init__(self, world: World, name: str, options: Options, record: Record) -> None:
        self._world = world
        self._options = options
        self._record = record
        self._random = world.stream(name)
        self._preempting = world.stream(f"{name} preempts")
        self._submitted = 0
        self._stopping = False
        self._certificate = Certificate("user", name)
        self.name = name
        self.loop = HostLoop(world, name, record.clock, lambda: 0.0)

    def start(self) -> None:
        self.task = self.loop.create_task(self.run())

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        """At the end of the world."""
        self.loop.die()
        self._world.inter(self.loop)

    @property
    def finished(self) -> bool:
        return self.task.done()

    def check(self) -> None:
        """Raises what a defect of the client itself, or an answer that can't be, has raised in it."""
        if self.task.done():
            self.task.result()

    async def run(self) -> None:
        mix = self._options.calls
        while not self._stopping:
            await asyncio.sleep(self._random.expovariate(1 / self._options.think_s))
            await getattr(self, self._random.choices(list(mix), list(mix.values()))[0])()
            if self._preempting.random() < self._options.preempt:
                await self.preempt()

    # --- what it does ---

    async def submit(self) -> None:
        await self.submit_some(1)

    async def submit_batch(self) -> None:
        await self.submit_some(self._random.randint(2, self._options.batch))

    async def submit_again(self) -> None:
        """As a client that has crashed and forgotten that it was answered."""
        submission_id = self._any_job()
        if submission_id is not None:
            await self._submit_until_known([submission_id])

    async def submit_some(self, count: int, *, patience: bool = False) -> None:
        ids = [f"{self.name}-{self._submitted + number}" for number in range(count)]
        self._submitted += count
        for submission_id in ids:
            spec = self._options.draw_spec(self._random, submission_id)
            if self._options.depend:
                known = {job_id: self._record.specs[name] for name, job_id in self._record.jobs.items()}
                spec = self._options.draw_dependency(self._random, spec, known)
            self._record.specs[submission_id] = spec
        await self._submit_until_known(ids, patience)

    async def change(self) -> None:
        """Cancel, suspend, resume or delete a job that anybody made."""
        submission_id = self._any_job()
        if submission_id is None:
            return
        kind = self._random.choices(list(CHANGES), (4, 2, 3, 1))[0]
        command = CHANGES[kind](job_id=self._record.jobs[submission_id], actor=self.name)
        (ending,) = await self._propose([submission_id], kind, [command])
        if ending == "unknown" and self._random.random() < 0.5:
            await self._propose([submission_id], kind, [command])

    async def preempt(self) -> None:
        """Have what runs of a job make room. What comes of it is no concern of the history: a task may have ended before."""
        recent = list(self._record.jobs.values())[-self._options.crowd :]
        if recent:
            command = PreemptTasks(job_id=self._preempting.choice(recent), actor=self.name)
            with contextlib.suppress(HaschedError):
                await self._ask(lambda replica: replica.propose(command))

    async def read(self) -> None:
        """A default read: linearizable, of a few jobs at once, on any manager."""
        keys = self._some_keys()
        begun = {key: self._begin(key, "read") for key in keys}

        async def look(replica: Replica) -> dict[str, Seen | None]:
            await replica.read_barrier()
            return {key: see(replica.state, key) for key in keys}

        try:
            seen = await self._ask(look)
        except HaschedError:
            for number in begun.values():
                self._record.history.failed(number, self.loop.time())
            return
        for key, number in begun.items():
            self._return(number, seen[key])
            if seen[key] is not None:
                self._record.learn(key, seen[key].job_id, "a read")

    async def read_stale(self) -> None:
        """It may be old, and must still be true: what it shows was committed."""
        keys = self._some_keys()

        async def look(replica: Replica) -> dict[str, Seen | None]:
            return {key: see(replica.state, key) for key in keys}

        try:
            seen = await self._ask(look)
        except HaschedError:
            return
        for key, job in seen.items():
            if job is not None:
                self._record.learn(key, job.job_id, "a stale read")

    # --- how it asks ---

    async def _submit_until_known(self, ids: list[str], patience: bool = False) -> None:
        """The same ids again as long as their outcome is not known; without `patience` the user gives up some time."""
        while ids:
            commands = [SubmitJob(submission_id=name, actor=self.name, spec=self._record.specs[name]) for name in ids]
            endings = await self._propose(ids, "submit", commands)
            ids = [name for name, ending in zip(ids, endings, strict=True) if ending != "returned"]
            if ids and not patience and self._random.random() < 0.15:
                return
            if ids:
                await asyncio.sleep(self._random.uniform(0.05, 1.0))

    async def _propose(self, keys: list[str], kind: str, commands: list[Command]) -> list[str]:
        """One call; how it ended for each of the commands."""
        begun = [self._begin(key, kind) for key in keys]
        try:
            results = await self._ask(lambda replica: replica.propose_many(commands))
        except OutcomeUnknown:
            for number in begun:
                self._record.history.unknown(number)
            return ["unknown"] * len(begun)
        except HaschedError:
            for number in begun:
                self._record.history.failed(number, self.loop.time())
            return ["failed"] * len(begun)
        for key, number, outcome in zip(keys, begun, results, strict=True):
            if isinstance(outcome, JobAccepted):
                self._record.learn(key, outcome.job_id, "an acknowledgement")
                self._record.acknowledged.setdefault(key, outcome.job_id)
            self._return(number, told(outcome))
        self._record.answered_at = self._world.now
        return ["returned"] * len(begun)

    async def _ask(self, act: Callable[[Replica], Awaitable[Any]]) -> Any:
        """Have a manager do it. Raises what it raises, NoLeader if it didn't get there, OutcomeUnknown without an answer."""
        leader = self._world.leader() if self._options.ask_leader else None
        manager = leader.name if leader is not None else self._random.choice(list(self._world.managers))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await ask(self.loop, self._certificate, manager, lambda host: act(host.replica))
        except ConnectionRefusedError as error:
            raise NoLeader(str(error), "ask another manager") from None
        except OSError as error:
            raise OutcomeUnknown(f"no answer came: {error}", "retry with the same submission id") from None

    def _begin(self, key: str, kind: str) -> int:
        self._record.asked += 1
        return self._record.history.begin(self.name, key, kind, self.loop.time())

    def _return(self, number: int, result: Any) -> None:
        self._record.returned += 1
        self._record.history.returned(number, self.loop.time(), result)

    def _any_job(self) -> str | None:
        """One of the latest, so that several clients meet at it."""
        recent = list(self._record.jobs)[-self._options.crowd :]
        return self._random.choice(recent) if recent else None

    def _some_keys(self) -> list[str]:
        recent = list(self._record.specs)[-self._options.crowd :]
        return self._random.sample(recent, min(len(recent), 3))


class Settler(Client):
    """The last client: once all is healed it submits a job, lets the others run a while, and sees every job to its end."""

    def __init__(self, world: World, options: Options, record: Record, others: list[Client]) -> None:
        super().__init__(world, "settler", options, record)
        self._others = others
        self.accepted = False
        self.left: list[int] = []

    async def run(self) -> None:
        await self.submit_some(1, patience=True)
        self.accepted = True
        if self._world.flips:
            await self._fill_the_log()
        while True:
            await asyncio.sleep(1.0)
            try:
                self.left = await self._ask(_unfinished)
                if not self.left:
                    return
                if self._random.random() < 0.2 and all(client.finished for client in self._others):
                    await self._ask(partial(_cancel, self.left))
            except HaschedError:
                pass

    async def _fill_the_log(self) -> None:
        """Until the managers have compared their states once more."""
        for _ in range(self._options.settings.tuning.check_entries + 10):
            with contextlib.suppress(HaschedError):
                await self._ask(lambda replica: replica.propose(ResumeJob(job_id=0, actor=self.name)))

    def complaint(self) -> str:
        if not self.finished:
            return f"{len(self.left)} jobs have not ended, {self.left[:5]} among them"
        return ""


async def _unfinished(replica: Replica) -> list[int]:
    await replica.read_barrier()
    return [job.id for job in replica.state.jobs.values() if not job.ended]


async def _cancel(job_ids: list[int], replica: Replica) -> None:
    await replica.propose_many([CancelJob(job_id=job_id, actor="settler") for job_id in job_ids])


def see(state: State, submission_id: str) -> Seen | None:
    """The job as the API shows it."""
    job = state.jobs.get(state.submissions.get(submission_id, 0))
    if job is None:
        return None
    by_itself = job.cancel is not None and job.cancel.actor == ACTOR  # nobody has asked for it, or may ask once more
    return Seen(job.id, None if by_itself else job.cancelling, job.suspended, job.state.name if job.ended else "")


def told(outcome: Outcome) -> Accepted | Refused | Done:
    match outcome:
        case JobAccepted(job_id=job_id, duplicate=duplicate):
            return Accepted(job_id, duplicate)
        case Rejected(code=code):
            return Refused(code)
        case outcomes.Done():
            return Done()
        case other:
            raise AssertionError(f"no client asks for what is answered with {other}")
