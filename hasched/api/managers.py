"""The managers and the cluster as a whole."""

from __future__ import annotations

import asyncio

import msgspec

from hasched import __version__
from hasched.api.call import Call
from hasched.api.context import ApiContext
from hasched.api.jobs import ReadOne
from hasched.api.routing import Routes
from hasched.model.errors import HaschedError
from hasched.model.views import ClusterView, ManagerPage, ManagerView
from hasched.raft.replica import Member
from hasched.statemachine import queries

PEER_TIMEOUT_S = 1.5

routes = Routes("cluster")


@routes.add("GET", "/v1/managers")
async def list_managers(call: Call) -> ManagerPage:
    """List the managers, each as it describes itself; one that doesn't answer is shown as unreachable.

    Works without a leader. `lag` counts the entries that a manager has not applied and the leader has committed.
    """
    context = call.context
    status = context.replica.status
    managers = await asyncio.gather(*(_ask(context, peer.member) for peer in status.members))
    leaders = [manager for manager in managers if manager.role == "leader"]
    leader = max(leaders, key=lambda manager: manager.term, default=None)  # one cut off may not know of the next
    if leader is not None:
        managers = [_with_lag(manager, leader) for manager in managers]
    return ManagerPage(managers=managers, leader=leader.id if leader is not None else None)


@routes.add("GET", "/v1/managers/self")
async def show_manager(call: Call) -> ManagerView:
    """The manager that is asked, as it sees itself."""
    return _describe_self(call.context)


@routes.add("GET", "/v1/cluster")
async def show_cluster(call: Call, query: ReadOne) -> ClusterView:
    """Count everything: jobs, tasks, nodes, and their resources."""
    replica = call.context.replica
    state = await call.read_state(query.consistency)
    leader = replica.leader
    return queries.cluster_view(
        state,
        cluster=call.context.cluster,
        leader=leader.manager_id if leader is not None else None,
        term=replica.term,
    )


async def _ask(context: ApiContext, member: Member) -> ManagerView:
    if member.manager_id == context.replica.manager_id:
        return _describe_self(context)
    try:
        return await context.peers.ask(member, "/v1/managers/self", ManagerView, PEER_TIMEOUT_S)
    except HaschedError:
        return _view(member, role="unreachable", reachable=False)


def _describe_self(context: ApiContext) -> ManagerView:
    status = context.replica.status
    member = next(each.member for each in status.members if each.member.manager_id == status.manager_id)
    return _view(
        member,
        role=status.role,
        reachable=True,
        term=status.term,
        last_index=status.last_index,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        version=__version__,
    )


def _view(
    member: Member,
    *,
    role: str,
    reachable: bool,
    term: int = 0,
    last_index: int = 0,
    commit_index: int = 0,
    applied_index: int = 0,
    version: str = "",
) -> ManagerView:
    return ManagerView(
        id=member.manager_id,
        api_url=member.api_url,
        raft_address=member.raft_address,
        role=role,
        term=term,
        last_index=last_index,
        commit_index=commit_index,
        applied_index=applied_index,
        version=version,
        reachable=reachable,
    )


def _with_lag(manager: ManagerView, leader: ManagerView) -> ManagerView:
    if not manager.reachable:
        return manager
    return msgspec.structs.replace(manager, lag=max(0, leader.commit_index - manager.applied_index))
