"""Nodes lose their disks at any moment, and no attempt is started a second time.

What an agent may have started before is known to the managers, if at all, only by what they had told it to start: its
reports may be on their way, or never have left. Its supervisor goes on for a while, where no agent finds it.
"""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from hasched.model.spec import Retries
from hasched.model.states import OnDisconnect, TaskState
from tests.simulation.checks import Checks
from tests.simulation.clients import Record
from tests.simulation.run import overlaps
from tests.simulation.settings import Settings
from tests.simulation.test_world import submit
from tests.simulation.world import World

FIRST = int(os.environ.get("HASCHED_SEED", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("HASCHED_SEEDS", "8")))
JOBS = 60
MANY = Retries(node_lost=1000)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_attempt_is_started_twice_whenever_its_node_loses_its_disk(seed: int) -> None:
    world = World(seed, Settings(agents=2))
    random = world.stream("story")
    with world:
        checks = Checks(world, Record(world))
        world.start()
        world.run(20, world.agree)
        numbers = iter(range(JOBS))
        for number in numbers:
            strict = OnDisconnect.STOP if number % 2 else OnDisconnect.RUN_ON
            submit(world, number, f"m{number % 3 + 1}", count=2, retries=MANY, on_disconnect=strict)
            world.run(random.uniform(0, 1))
            if random.random() < 0.25:
                agent = world.agents[random.choice(list(world.agents))]
                if random.random() < 0.3:
                    agent.cut_power()
                agent.lose_disk()
                world.after(random.choice((0.1, 5.0)), agent.start)
            if random.random() < 0.05:
                manager = world.managers[random.choice(list(world.managers))]
                manager.kill()
                world.after(2.0, manager.start)
        world.heal()

        def done() -> bool:
            leader = world.leader()
            jobs = leader.replica.state.jobs.values() if leader is not None else ()
            return len(jobs) > JOBS // 2 and all(job.ended for job in jobs) and world.agree()

        assert world.run(600, done)
        assert checks.verdict() + overlaps(world) == []
        attempts = sorted(run.key for run in world.runs)
        assert all(one != other for one, other in pairwise(attempts))
        assert any(key.attempt > 1 for key in attempts), "no task was ever on a node when its disk was lost"
        leader = world.leader()
        assert leader is not None
        states = [job.state for job in leader.replica.state.jobs.values()]
        assert TaskState.NODE_LOST not in states
