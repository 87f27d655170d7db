"""The environment variables that a task has for itself alone, beside those of its job. Pure."""

from __future__ import annotations

from hasched.model.spec import JobSpec
from hasched.model.wire import Gang, Resume

MAX_LIST_BYTES = 64 * 1024  # of HASCHED_NODES: Linux takes 128 KiB for one variable


def resume_environment(resume: Resume) -> dict[str, str]:
    """For a task that has run before: where it may go on."""
    variables: dict[str, str] = {}
    if resume.checkpoint_ms:
        variables["HASCHED_CHECKPOINT_MS"] = str(resume.checkpoint_ms)
    if resume.preempted_from:
        variables["HASCHED_PREEMPTED_FROM"] = resume.preempted_from
    return variables


class GangVariables:
    """What the tasks of a gang on one node are told; made once for all of them."""

    def __init__(self, gang: Gang, spec: JobSpec, node_id: str) -> None:
        self._spec = spec
        there = next((place for place, node in enumerate(gang.nodes) if node.node_id == node_id), None)
        assert there is not None, "a gang's task is sent to a node of the gang"
        self._local = {rank: place for place, rank in enumerate(gang.nodes[there].ranks)}
        addresses = ",".join(node.address for node in gang.nodes)
        self.hostfile = "".join(f"{node.address} slots={len(node.ranks)}\n" for node in gang.nodes)
        self._shared = {
            "HASCHED_WORLD_SIZE": str(gang.size),
            "HASCHED_LOCAL_WORLD_SIZE": str(len(self._local)),
            "HASCHED_NODE_RANK": str(there),
            "HASCHED_NODE_COUNT": str(len(gang.nodes)),
            "WORLD_SIZE": str(gang.size),
            "LOCAL_WORLD_SIZE": str(len(self._local)),
            "GROUP_RANK": str(there),
            "MASTER_ADDR": gang.nodes[0].address,
            "MASTER_PORT": str(gang.port),
        }
        if len(addresses) <= MAX_LIST_BYTES:
            self._shared["HASCHED_NODES"] = addresses

    def of(self, rank: int) -> dict[str, str]:
        variables = {
            **self._shared,
            "HASCHED_RANK": str(rank),
            "HASCHED_LOCAL_RANK": str(self._local[rank]),
            "RANK": str(rank),
            "LOCAL_RANK": str(self._local[rank]),
        }
        terms = self._spec.gang_terms
        if terms is not None and (grouped := terms.group_of(rank)) is not None:
            group, place = grouped
            variables["HASCHED_GROUP"], variables["HASCHED_GROUP_RANK"] = group.name, str(place)
        return variables
