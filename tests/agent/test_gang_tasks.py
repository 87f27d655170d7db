"""What the tasks of a gang find: their ranks, the others' addresses, and a host file."""

from __future__ import annotations

import msgspec

from hasched.agent.specs import spec_of_task
from hasched.agent.variables import MAX_LIST_BYTES, GangVariables
from hasched.model.spec import JobSpec, Resources, TaskGroup
from hasched.model.wire import Assign, Assignment, Gang, GangNode
from tests.agent.peer import AgentProcess, Peer
from tests.agent.test_running import shell

GANG = Gang(4, 29_500, (GangNode("n2", "10.0.0.2", ((0, 1), (3, 1))), GangNode("n1", "10.0.0.1", ((1, 2),))))
WRITE = (
    "echo $RANK $HASCHED_RANK $WORLD_SIZE $HASCHED_WORLD_SIZE $LOCAL_RANK $HASCHED_LOCAL_RANK $LOCAL_WORLD_SIZE "
    "$GROUP_RANK $HASCHED_NODE_RANK $HASCHED_NODE_COUNT $MASTER_ADDR:$MASTER_PORT $HASCHED_NODES; cat $HASCHED_HOSTFILE"
)


async def test_a_rank_knows_itself_and_the_others(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    spec = msgspec.structs.replace(shell(WRITE), count=4, gang=True, env={"RANK": "77"})
    await peer.send(Assign((Assignment(1, spec, ((1, 1), (2, 1)), (), GANG),)))
    first, second = await peer.ended(1, 1, 1), await peer.ended(1, 2, 1)
    hosts = b"10.0.0.2 slots=2\n10.0.0.1 slots=2\n"
    rest = b"10.0.0.2:29500 10.0.0.2,10.0.0.1\n" + hosts
    assert await peer.log_of(first) == b"1 1 4 4 0 0 2 1 1 2 " + rest
    assert await peer.log_of(second) == b"2 2 4 4 1 1 2 1 1 2 " + rest


def grouped() -> JobSpec:
    groups = (
        TaskGroup("driver", 1, Resources(cpu_milli=2000)),
        TaskGroup("worker", 3, Resources(cpu_milli=500, gpus=1)),
    )
    return JobSpec(name="job", command=("true",), count=4, gang=True, groups=groups)


def test_a_rank_knows_its_group() -> None:
    variables = GangVariables(GANG, grouped(), "n2")
    assert [variables.of(rank)["HASCHED_GROUP"] for rank in (0, 3)] == ["driver", "worker"]
    assert [variables.of(rank)["HASCHED_GROUP_RANK"] for rank in (0, 3)] == ["0", "2"]


def test_a_task_is_started_with_what_its_group_asks_for() -> None:
    assert [spec_of_task(grouped(), rank).resources.gpus for rank in range(4)] == [0, 1, 1, 1]


def test_a_list_that_no_variable_could_hold_is_left_to_the_host_file() -> None:
    many = Gang(10_000, 1, tuple(GangNode(f"n{n}", f"node-{n}.example.org", ((n, 1),)) for n in range(10_000)))
    variables = GangVariables(many, shell("true"), "n7")
    assert "HASCHED_NODES" not in variables.of(7)
    assert len(variables.hostfile) > MAX_LIST_BYTES and variables.hostfile.count("\n") == 10_000
