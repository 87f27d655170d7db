"""Health, for load balancers and service managers; open to everybody, and silent about anything else."""

from __future__ import annotations

import msgspec

from hasched.api.call import Call
from hasched.api.routing import Routes
from hasched.model.errors import NoLeader

MAX_BEHIND = 1000  # entries: under load a manager is always a few behind

routes = Routes("health")


class Health(msgspec.Struct, frozen=True):
    status: str
    manager: str


@routes.add("GET", "/livez", access="open")
async def show_life(call: Call) -> Health:
    """200 as long as this manager answers at all."""
    return Health("alive", call.context.replica.manager_id)


@routes.add("GET", "/readyz", access="open")
async def show_readiness(call: Call) -> Health:
    """200 if this manager knows a leader and has applied nearly all that is committed, else 503."""
    replica = call.context.replica
    status = replica.status
    if status.role == "removed":
        raise NoLeader("this manager was removed from the cluster", "stop it")
    if replica.leader is None:
        raise NoLeader("this manager knows no leader", "look at `hasched manager list`")
    behind = status.commit_index - status.applied_index
    if behind > MAX_BEHIND:
        raise NoLeader(f"this manager is {behind} log entries behind", "wait until it has caught up")
    return Health("ready", status.manager_id)
