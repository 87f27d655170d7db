"""Workflows in a simulated cluster: somebody starts executions of random ones, cancels some, and begins again what has failed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from hasched.model.errors import BodyTooLarge, HaschedError
from hasched.model.workflow import WorkflowSpec
from hasched.model.workflow_text import parse_workflow
from hasched.raft.replica import Applied, Replica
from hasched.statemachine.commands import CancelExecution, Command, RetryExecution, StartExecution
from hasched.statemachine.outcomes import ExecutionAccepted, Outcome
from tests.simulation.executions import SEEN, Executions
from tests.simulation.manager import ask
from tests.simulation.network import Certificate

if TYPE_CHECKING:
    from tests.simulation.manager import SimulatedManager
    from tests.simulation.world import World

PATIENCE_S = 8.0
CALM_S = 100.0  # after everything was healed, executions have so long to end by themselves


class Workflows:
    def __init__(self, world: World, task_s: float) -> None:
        self._world = world
        self._task_s = task_s
        self._random = world.stream("workflows")
        self._loop = world.client("author")
        self._executions = Executions()
        self._started: dict[str, int] = {}
        self._applied_to = 0
        self._stopping = False
        world.on_applied.append(self._applied)

    def start(self) -> None:
        self._task = self._loop.create_task(self._run())

    def stop(self) -> None:
        """Nothing more is started."""
        self._stopping = True

    @property
    def finished(self) -> bool:
        return self._task.done()

    async def _run(self) -> None:
        random = self._random
        for number in range(random.randrange(2, 7)):
            if self._stopping:
                break
            name = f"execution-{number}"
            spec = draw_workflow(random, self._task_s)
            try:
                told = await self._tell(StartExecution(submission_id=name, actor="author", spec=spec))
            except BodyTooLarge:  # some clusters take but little at once
                continue
            assert isinstance(told, ExecutionAccepted), told
            self._started[name] = told.execution_id
            await self._meddle()
        while not self._stopping:
            await self._meddle()
        await self._see_to_the_end()

    async def _meddle(self) -> None:
        """It may well be refused: it depends on how far the execution is."""
        random = self._random
        await asyncio.sleep(random.choice((0.2, 2.0, 8.0)) * random.random())
        if not self._started:
            return
        execution_id = random.choice(list(self._started.values()))
        if random.random() < 0.1:
            await self._tell(CancelExecution(execution_id=execution_id, actor="author"))
        elif random.random() < 0.4:
            await self._tell(RetryExecution(execution_id=execution_id, actor="author"))

    async def _see_to_the_end(self) -> None:
        """Where no agent runs anything, they end by being cancelled."""
        until = self._world.now + CALM_S
        while open_ones := await self._ask(_unfinished):
            await asyncio.sleep(1.0)
            if self._world.now > until:
                for execution_id in open_ones:
                    await self._tell(CancelExecution(execution_id=execution_id, actor="author"))

    async def _tell(self, command: Command) -> Outcome:
        return await self._ask(lambda replica: replica.propose(command))

    async def _ask(self, work: Any) -> Any:
        """Until a manager has answered. Raises BodyTooLarge."""
        certificate = Certificate("user", "author")
        while True:
            manager = self._random.choice(list(self._world.managers))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await ask(self._loop, certificate, manager, lambda host: work(host.replica))
            except BodyTooLarge:
                raise
            except (HaschedError, OSError):
                await asyncio.sleep(self._random.uniform(0.2, 1.0))

    def _applied(self, manager: SimulatedManager, applied: Applied) -> None:
        if applied.index <= self._applied_to:
            return
        self._applied_to = applied.index
        for event in applied.events:
            self._executions.take(event)
        if self._executions.wrong:
            self._world.complain(manager.name, self._executions.wrong[0])

    def verdict(self) -> list[str]:
        """Everything is healed, and the managers agree. Raises what a defect of the author has raised in it."""
        self._task.result()
        manager = self._world.leader()
        assert manager is not None
        executions, told = manager.replica.state.executions, self._executions.told
        wrong = [f"{name} was accepted as execution {each}" for name, each in self._started.items() if each not in told]
        for execution_id, known in told.items():
            found = executions.get(execution_id)
            if found is None or not found.ended or found.state is not known.ended:
                wrong.append(f"execution {execution_id} is {found and found.state.name}, and was told as {known.ended}")
        ended_s = {run.key: run.ended_s for run in self._world.runs}
        for run in self._world.runs:
            for before in self._executions.waits_for.get(run.key.job_id, ()):
                if (ended_s[before] or run.started_s + 1) > run.started_s:
                    wrong.append(f"attempt {tuple(run.key)} runs, and {tuple(before)} before it has not ended")
        return wrong


async def _unfinished(replica: Replica) -> list[int]:
    await replica.read_barrier()
    return [execution.id for execution in replica.state.executions.values() if not execution.ended]


def draw_workflow(random: Random, task_s: float) -> WorkflowSpec:
    tasks: dict[str, dict[str, Any]] = {}
    for row in range(random.randrange(1, 8)):
        before = [name for name in tasks if random.random() < 2 / (row + 1)]
        after = {name: random.choice(("ok", "ok", "ok", "ok", "failed", "any")) for name in before}
        task = _draw_job(random, task_s) | {"after": after}
        task["env"][SEEN] = "|".join(map(_seen, [tasks[name] for name in before], before, after.values()))
        if random.random() < 0.3:
            task |= _draw_fan_out(random, [name for name in before if "for_each" not in tasks[name]], after)
        if random.random() < 0.2:
            task["condition"] = random.choice(("true", "false"))
        if random.random() < 0.2:
            task["compensate"] = _draw_job(random, task_s)
        tasks[f"t{row}"] = task
    document: dict[str, Any] = {"name": "random", "tasks": tasks, "on_failure": random.choice(("stop", "continue"))}
    if random.random() < 0.3:
        document["finally"] = {"last": _draw_job(random, task_s)}
    if random.random() < 0.3:
        document["parallelism"] = random.randrange(1, 4)
    _draw_check(Random(repr(document)), document)
    return parse_workflow(document, given={}).spec


def _draw_check(random: Random, document: dict[str, Any]) -> None:
    """Some are looked at before anything of them runs, and of those some have a task for which there is no node."""
    if random.random() < 0.3:
        document["hooks"] = {"pre": ["validate_resources"]}
        if random.random() < 0.4:
            random.choice(list(document["tasks"].values()))["resources"] = {"cpu": "0.25", "gpus": 1}


def _seen(task: dict[str, Any], name: str, when: str) -> str:
    """What a task is given of one before it: its output, or how it ended where it may have none."""
    if when != "ok" or "complete_when" in task:
        return f"#{{{name}.state}}"
    return f"#{{join({name}.outputs, ',')}}" if "for_each" in task else f"#{{{name}.output}}"


def _draw_fan_out(random: Random, before: list[str], after: dict[str, str]) -> dict[str, Any]:
    """Over numbers, or over what one before it puts out."""
    upstream = [name for name in before if after[name] == "ok"]
    items: Any = list(range(random.choice((0, 1, 3, 6))))
    if upstream and random.random() < 0.5:
        items = f"split({random.choice(upstream)}.output, '.')"
    fan_out: dict[str, Any] = {"for_each": items}
    if random.random() < 0.4:
        fan_out["parallelism"] = random.randrange(1, 3)
    if random.random() < 0.3:
        fan_out["complete_when"] = random.choice(("any", 2))
        if isinstance(items, list) and len(items) < 2:
            fan_out["for_each"] = str(
                items
            )  # as an expression: what can't succeed is refused in a list that is known before
    return fan_out


def _draw_job(random: Random, task_s: float) -> dict[str, Any]:
    """What the simulated kernel makes of it, see tasks.py."""
    env = {"RUN_MS": str(random.randrange(20, 30 + int(1000 * task_s))), "TELL": "1"}
    if random.random() < 0.7:
        env["EXIT"] = random.choice("0000001")
    retries = {"max": random.choice((0, 0, 2)), "backoff": {"initial": "100ms", "max": "1s"}}
    return {"command": ["task"], "env": env, "resources": {"cpu": "0.25", "memory": "1Mi"}, "retries": retries}
