"""The simulated world itself: a cluster runs in it, and the same seed is the same run."""

from __future__ import annotations

import os
import subprocess
import sys

from hasched.model.spec import JobSpec
from hasched.statemachine.commands import SubmitJob
from tests.simulation.manager import ask
from tests.simulation.network import Certificate
from tests.simulation.world import World

ADA = Certificate("client", "ada")


def submit(world: World, number: int, manager: str, **options: object) -> None:
    """A client's submission; whatever becomes of it."""
    spec = JobSpec(name="job", command=("true",), **options)
    command = SubmitJob(submission_id=f"s{number}", actor="ada", spec=spec)
    client = world.client(f"c{number}")
    client.create_task(ask(client, ADA, manager, lambda asked: asked.replica.propose(command)))


def story(seed: int) -> World:
    """Some of everything: work, a crash, a cut, a pause, a node that reboots."""
    world = World(seed)
    with world:
        world.start()
        world.run(10, world.agree)
        for number in range(10):
            submit(world, number, f"m{number % 3 + 1}", count=2)
        world.run(2)
        world.managers["m1"].kill()
        world.network.cut("m2", "a1")
        world.agents["a2"].cut_power()
        world.run(3)
        world.managers["m2"].pause()
        world.run(4)
        world.heal()
        assert world.run(30, world.agree)
        world.run(40)
        assert len(world.runs) >= 20
        leader = world.leader()
        assert leader is not None
        assert len(leader.replica.state.jobs) == 10
        assert all(job.ended_ms is not None for job in leader.replica.state.jobs.values())
    return world


def test_a_cluster_works_through_faults_and_the_same_seed_is_the_same_run_in_any_process() -> None:
    here = story(7).fingerprint
    program = "from tests.simulation.test_world import story; print(story(7).fingerprint)"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        elsewhere = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert elsewhere.stdout.strip() == here
    assert story(8).fingerprint != here
