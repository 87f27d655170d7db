"""What the tasks of a gang are told of each other."""

from __future__ import annotations

from collections.abc import Sequence

from hasched.model.wire import Gang, GangNode
from hasched.statemachine.job import Job
from hasched.statemachine.state import State


def show_gang(state: State, job: Job) -> Gang | None:
    """Where a gang runs. Everybody hears the same, whenever they ask, but for the address of a node that has changed its own."""
    run = job.gang_run
    if run is None:
        return None
    nodes = []
    for number, ranks in run.nodes:
        node_id = state.node_names[number]
        node = state.nodes.get(node_id)
        address = node.info.address or node.info.hostname if node is not None else node_id
        nodes.append(GangNode(node_id, address, _runs_of(ranks)))
    return Gang(run.size, run.port, tuple(nodes))


def _runs_of(ranks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Ranks that follow each other as (first, how many)."""
    runs: list[tuple[int, int]] = []
    for rank in sorted(ranks):
        if runs and sum(runs[-1]) == rank:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((rank, 1))
    return tuple(runs)
