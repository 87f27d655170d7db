"""The managers: who they are, who shall be one, who leads, and whether their states agree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import structlog

from hasched import __version__
from hasched.api.call import Call
from hasched.api.context import ApiContext
from hasched.api.routing import Routes
from hasched.model.addresses import check_api_url, split_address
from hasched.model.errors import BadRequest, HaschedError, NotFound
from hasched.model.ids import is_name
from hasched.model.views import CheckAsked, CheckView, LeaderView, ManagerPage, ManagerView, PeerView
from hasched.raft.replica import Member, MemberStatus, ReplicaStatus, Verdict
from hasched.statemachine import queries
from hasched.statemachine.commands import AddManager, RemoveManager

PEER_TIMEOUT_S = 1.5

log = structlog.get_logger(__name__)
routes = Routes("managers")


class AddManagerRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    api_url: str  # https://HOST:PORT
    raft_address: str  # HOST:PORT


@routes.add("GET", "/v1/managers")
async def list_managers(call: Call) -> ManagerPage:
    """List the managers, each as it describes itself; one that doesn't answer is shown as unreachable.

    Works without a leader. `lag` counts the entries that a manager has not applied and the leader has committed.
    """
    context = call.context
    members = _known_members(context)
    managers = list(await asyncio.gather(*(_ask(context, member) for member in members)))
    leaders = [manager for manager in managers if manager.role == "leader"]
    leader = max(leaders, key=lambda manager: manager.term, default=None)  # one cut off may not know of the next
    checks = [manager.check for manager in managers if manager.check is not None]
    listed = [_as_listed(manager, leader) for manager in managers]
    return ManagerPage(
        managers=[each for each in listed if each.membership != "removed" or each.id == context.replica.manager_id],
        leader=leader.id if leader is not None else None,
        check=max(checks, key=lambda check: check.log_index, default=None),
    )


@routes.add("GET", "/v1/managers/self")
async def show_manager(call: Call) -> ManagerView:
    """The manager that is asked, as it sees itself."""
    return _describe_self(call.context)


@routes.add("POST", "/v1/managers")
async def add_manager(call: Call, body: AddManagerRequest) -> ManagerView:
    """Add a manager. It is taken in when it can be reached, and has a vote once its disk is filled.

    The answer comes as soon as this is decided; the list of managers tells how far it is. Adding one again that is there
    at the same addresses changes nothing.
    """
    if not is_name(body.id):
        raise BadRequest(f"{body.id[:100]!r} can't name a manager", "use letters, digits, '.', '_' and '-'")
    try:
        api_url = check_api_url(body.api_url)
        split_address(body.raft_address)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    await call.propose(
        AddManager(manager_id=body.id, actor=call.actor, api_url=api_url, raft_address=body.raft_address)
    )
    return _as_listed(await _ask(call.context, Member(body.id, api_url, body.raft_address)), None)


@routes.add("DELETE", "/v1/managers/{manager_id}", status=204)
async def remove_manager(call: Call, manager_id: str) -> None:
    """Remove a manager. It leaves as soon as a majority of the others can go on without it; a leader hands over first."""
    await call.propose(RemoveManager(manager_id=manager_id, actor=call.actor))


@routes.add("POST", "/v1/managers/{manager_id}/lead")
async def make_leader(call: Call, manager_id: str) -> LeaderView:
    """Hand leadership over to this manager. Answers once it leads; nothing that was accepted is lost by it."""
    if all(each.member.manager_id != manager_id for each in call.context.replica.status.members):
        raise no_such_manager(manager_id)
    return await _transfer(call, manager_id)


@routes.add("POST", "/v1/managers/lead")
async def change_leader(call: Call) -> LeaderView:
    """Hand leadership over to whichever other manager is best prepared. Answers once it leads."""
    return await _transfer(call, None)


@routes.add("POST", "/v1/managers/check")
async def check_managers(call: Call) -> CheckAsked:
    """Have the managers compare their states now. What comes of it is `check` in the list of managers."""
    log.info("check_asked", actor=call.actor)
    return CheckAsked(log_index=await call.context.replica.check())


async def _transfer(call: Call, target: str | None) -> LeaderView:
    log.info("transfer_asked", actor=call.actor, target=target or "any")
    return LeaderView(leader=await call.context.replica.transfer(target))


def no_such_manager(manager_id: str) -> NotFound:
    return NotFound(f"there is no manager {manager_id[:100]!r}", "see the list of managers", code="no_such_manager")


# --- what is shown ---


def _known_members(context: ApiContext) -> list[Member]:
    """Who is a member by this manager's log, who is wanted by its state, and itself, which may have been removed."""
    known = {status.member.manager_id: status.member for status in context.replica.status.members}
    for wanted in queries.wanted_managers(context.replica.state):
        known.setdefault(wanted.manager_id, Member(wanted.manager_id, wanted.api_url, wanted.raft_address))
    me = context.replica.manager_id
    known.setdefault(me, Member(me, "", ""))
    return [member for _, member in sorted(known.items())]


async def _ask(context: ApiContext, member: Member) -> ManagerView:
    if member.manager_id == context.replica.manager_id:
        view = _describe_self(context)
    else:
        try:
            view = await context.peers.ask(member, "/v1/managers/self", ManagerView, PEER_TIMEOUT_S)
        except HaschedError:
            view = _unreachable(member.manager_id)
    return msgspec.structs.replace(
        view,
        api_url=member.api_url,
        raft_address=member.raft_address,
        membership=_membership(context, view),
    )


def _membership(context: ApiContext, view: ManagerView) -> str:
    """What `view`'s manager is to the cluster, as far as this manager knows."""
    if view.id == context.replica.manager_id and view.role == "removed":
        return "removed"  # by the others' word: what its own log says is out of date
    status = next((each for each in context.replica.status.members if each.member.manager_id == view.id), None)
    wanted = queries.is_wanted(context.replica.state, view.id)
    if status is None:
        return "joining" if wanted else "removed"
    if not wanted:
        return "leaving"
    return "voter" if status.voter else "learner"


def _describe_self(context: ApiContext) -> ManagerView:
    status = context.replica.status
    me = next((each.member for each in status.members if each.member.manager_id == status.manager_id), None)
    view = ManagerView(
        id=status.manager_id,
        api_url=me.api_url if me is not None else "",
        raft_address=me.raft_address if me is not None else "",
        role=status.role,
        term=status.term,
        last_index=status.last_index,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        version=__version__,
        reachable=True,
        check=_show_verdict(status.verdict),
        peers=list(_show_peers(status)),
    )
    return msgspec.structs.replace(view, membership=_membership(context, view))


def _show_peers(status: ReplicaStatus) -> Iterable[PeerView]:
    return map(_show_peer, status.members) if status.role == "leader" else ()


def _show_peer(peer: MemberStatus) -> PeerView:
    return PeerView(
        id=peer.member.manager_id,
        voter=peer.voter,
        connected=peer.connected,
        filled=peer.filled,
        match_index=peer.match_index,
    )


def _show_verdict(verdict: Verdict | None) -> CheckView | None:
    if verdict is None:
        return None
    return CheckView(
        log_index=verdict.index,
        time_ms=verdict.time_ms,
        agreed=verdict.agreed is not None,
        differing=verdict.differing,
        silent=verdict.silent,
    )


def _unreachable(manager_id: str) -> ManagerView:
    return ManagerView(
        id=manager_id,
        api_url="",
        raft_address="",
        role="unreachable",
        term=0,
        last_index=0,
        commit_index=0,
        applied_index=0,
        version="",
        reachable=False,
    )


def _as_listed(manager: ManagerView, leader: ManagerView | None) -> ManagerView:
    """With what the leader knows of it, who has the last word on who is a member."""
    manager = msgspec.structs.replace(manager, peers=[])
    if leader is None:
        return manager
    if manager.reachable:
        manager = msgspec.structs.replace(manager, lag=max(0, leader.commit_index - manager.applied_index))
    wanted = manager.membership not in ("leaving", "removed")
    peer = next((peer for peer in leader.peers if peer.id == manager.id), None)
    if peer is None:
        return msgspec.structs.replace(manager, membership="joining" if wanted else "removed")
    membership = "leaving" if not wanted else "voter" if peer.voter else "learner"
    return msgspec.structs.replace(manager, membership=membership, connected=peer.connected, filled=peer.filled)
