"""Policies: put whole and deleted whole, never while something would be left without what it refers to.

`if_index` makes a change depend on what its author saw: the log index of the policy, 0 where nobody had put one. A put
that asks for what is there already changes nothing and succeeds whatever `if_index` says, so it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy

from hasched.model.errors import PolicyInvalid
from hasched.model.ids import is_name
from hasched.model.policy import (
    THE_GPU_ROOM,
    Cap,
    CapSubject,
    FairShare,
    GpuRoom,
    Notification,
    Policy,
    PolicyKind,
    Quota,
    kind_of,
)
from hasched.model.policy_text import parse_policy, write_policy
from hasched.model.words import counted
from hasched.statemachine.commands import BATCH_VERSION, DeletePolicy, PutPolicy
from hasched.statemachine.events import PolicyChanged, PolicyDeleted
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.policies import PolicyRecord, built_in
from hasched.statemachine.rules import Decision, fair_shares
from hasched.statemachine.rules.notifications import TOLD_HELD_SINCE, decide_discard, forget_target
from hasched.statemachine.rules.yields import MAX_REASON_LENGTH
from hasched.statemachine.state import LIMITING, State

MAX_POLICIES = 100_000
MAX_NOTIFICATIONS = 100  # each has a lane of its own in the outbox
BODIES_CHECKED_SINCE = 2  # the version of entries; before, there were no policies
MAX_DEPTH = 8  # of quotas that are parts of quotas


def decide_put(state: State, command: PutPolicy) -> Decision | Rejected:
    kind, name, body = command.kind, command.name, command.body
    if not is_name(name) or kind_of(body) is not kind:
        return Rejected("invalid_policy", f"{kind}/{name[:100]} is not a policy", "use parse_policy")
    present = state.policies[kind].get(name)
    if present is not None and present.body == body:
        return Decision([])
    if refused := _refuse_stale(kind, name, present, command.if_index):
        return refused
    if present is None and kind is PolicyKind.NOTIFICATION and len(state.policies[kind]) >= MAX_NOTIFICATIONS:
        cause = f"a cluster has at most {MAX_NOTIFICATIONS} notifications"
        return Rejected("too_many_policies", cause, "delete some")
    if present is None and sum(map(len, state.policies.values())) >= MAX_POLICIES:
        return Rejected("too_many_policies", f"a cluster has at most {MAX_POLICIES} policies", "delete some")
    if refused := _refuse_unsound(state, kind, name, body) or _refuse_body(state, name, body):
        return refused
    return Decision([PolicyChanged(kind, name, body, command.actor)])


def trial(state: State) -> State:
    """The state as it is, with policies that can be tried without any of this becoming true: for `try_put` alone."""
    twin = copy(state)
    twin.policies = {kind: dict(table) for kind, table in state.policies.items()}
    twin.entry_version = BATCH_VERSION
    return twin


def try_put(twin: State, command: PutPolicy) -> Rejected | None:
    """Why a policy couldn't be put now; if it could, the trial goes on as if it had been."""
    decision = decide_put(twin, command)
    if isinstance(decision, Rejected):
        return decision
    record = PolicyRecord(command.name, command.body, command.actor, twin.now_ms, twin.now_ms, twin.index)
    twin.policies[command.kind][command.name] = record
    return None


def decide_delete(state: State, command: DeletePolicy) -> Decision | Rejected:
    kind, name = command.kind, command.name
    present = state.policies[kind].get(name)
    if present is None:
        return Rejected("no_such_policy", f"there is no {kind}/{name[:100]}", "see `hasched policy list`")
    if present.built_in:
        return Rejected("policy_built_in", f"{kind}/{name} is built in", "put another in its place")
    if refused := _refuse_stale(kind, name, present, command.if_index):
        return refused
    user = next(_users_of(state, kind, name), None) if built_in(kind, name) is None else None
    if user is not None:
        return Rejected("policy_in_use", f"{kind}/{name} is used by {user}", "change or delete that first")
    discarded = decide_discard(state, name) if kind is PolicyKind.NOTIFICATION else ()
    return Decision([*discarded, PolicyDeleted(kind, name, command.actor)])


def _refuse_unsound(state: State, kind: PolicyKind, name: str, body: Policy) -> Rejected | None:
    """A body that no document could have given, whoever proposed it: planners and sums rely on what documents are held to.

    So what a document of an earlier version could say has to stay possible.
    """
    if state.entry_version < BODIES_CHECKED_SINCE:
        return None
    try:
        sound = parse_policy(kind, name, write_policy(body))[1] == body
    except PolicyInvalid as invalid:
        return Rejected("invalid_policy", f"{kind}/{name}: {invalid.cause}"[:MAX_REASON_LENGTH], invalid.hint)
    except (ValueError, ArithmeticError, LookupError):
        sound = False
    return None if sound else Rejected("invalid_policy", f"{kind}/{name} is out of bounds", "use parse_policy")


def _refuse_stale(kind: PolicyKind, name: str, present: PolicyRecord | None, if_index: int | None) -> Rejected | None:
    index = present.log_index if present is not None else 0
    if if_index is None or if_index == index:
        return None
    seen = f"was changed at {index}" if index else "is not there any more"
    return Rejected("policy_changed", f"{kind}/{name} {seen}, and {if_index} was expected", "look at it, and try again")


def _refuse_body(state: State, name: str, body: Policy) -> Rejected | None:
    """What keeps a body from being put, as things are."""
    if isinstance(body, FairShare):
        return fair_shares.find_fault(name, body)
    if isinstance(body, GpuRoom):
        if name != THE_GPU_ROOM:
            what = f"there is one gpu_room, called {THE_GPU_ROOM}"
            return Rejected("invalid_policy", what, f"put gpu_room/{THE_GPU_ROOM}")
        return None
    if isinstance(body, Cap) and body.namespace and body.namespace not in state.policies[PolicyKind.NAMESPACE]:
        return Rejected("unknown_namespace", f"there is no namespace {body.namespace}", "put the namespace first")
    if isinstance(body, Cap) and body.subject is not CapSubject.SEMAPHORE and name in state.usage.semaphore_jobs:
        return Rejected("policy_in_use", f"jobs take cap/{name} as a semaphore", "put a cap of another name")
    if isinstance(body, Notification):
        missing = [each for each in body.namespaces if each not in state.policies[PolicyKind.NAMESPACE]]
        if missing:
            return Rejected("unknown_namespace", f"there is no namespace {missing[0]}", "put the namespace first")
        namespaces = sorted(dict.fromkeys(each for _, table in _told(state, name) for each in table))
        untold = next((each for each in namespaces if not body.serves(each)), None)
        if untold is not None:
            cause = f"jobs or executions of namespace {untold} name notification/{name}"
            return Rejected("policy_in_use", cause, "have it tell of that namespace until they have ended")
        return None
    if not isinstance(body, Quota):
        return None
    if body.namespace and body.namespace not in state.policies[PolicyKind.NAMESPACE]:
        return Rejected("unknown_namespace", f"there is no namespace {body.namespace}", "put the namespace first")
    quotas = state.policies[PolicyKind.QUOTA]
    if body.each_user and body.parent:
        return Rejected("invalid_policy", f"quota/{name} is of each user, and has no parent", "use parse_policy")
    if body.each_user and any(isinstance(each.body, Quota) and each.body.parent == name for each in quotas.values()):
        return Rejected(
            "policy_in_use", f"quota/{name} has parts, and a quota of each user can't", "change those first"
        )
    parent, depth = body.parent, 1
    while parent:
        above = quotas.get(parent)
        if parent == name or depth > MAX_DEPTH:
            return Rejected(
                "quota_cycle", f"quota/{name} would be a part of itself, or of more than {MAX_DEPTH}", "name another"
            )
        if above is None:
            return Rejected("unknown_quota", f"there is no quota {parent}", "put the parent first")
        assert isinstance(above.body, Quota), "the table of quotas holds quotas"
        if above.body.each_user:
            return Rejected("unknown_quota", f"quota/{above.name} is of each user, and has no parts", "name another")
        parent, depth = above.body.parent, depth + 1
    # What an old log has made deeper may still be put anew where it stands.
    present = quotas.get(name)
    moves = present is None or not isinstance(present.body, Quota) or present.body.parent != body.parent
    if body.parent and moves and depth + _height_below(quotas, name) > MAX_DEPTH + 1:
        return Rejected(
            "quota_cycle",
            f"quota/{name} and its parts would stand more than {MAX_DEPTH} deep",
            "name a parent higher up",
        )
    return None


def _height_below(quotas: Mapping[str, PolicyRecord], name: str) -> int:
    """How many levels of parts a quota has; MAX_DEPTH is as good as more."""
    level: dict[str, None] = {name: None}
    for height in range(MAX_DEPTH):
        level = {
            each.name: None for each in quotas.values() if isinstance(each.body, Quota) and each.body.parent in level
        }
        if not level:
            return height
    return MAX_DEPTH


def _told(state: State, name: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Of what a notification tells because that names it and has not ended: the noun, and how many, by namespace."""
    if state.entry_version >= TOLD_HELD_SINCE:
        yield "job", state.usage.told_jobs.get(name, {})
        yield "execution", state.told_executions.get(name, {})


def _users_of(state: State, kind: PolicyKind, name: str) -> Iterator[str]:
    """What refers to a policy and would be left without it, the first few suffice."""
    if kind is PolicyKind.CAP and (jobs := state.usage.semaphore_jobs.get(name, 0)):
        yield f"{counted(jobs, 'job')} as a semaphore"
    if kind is PolicyKind.NOTIFICATION:
        yield from (f"{counted(sum(told.values()), noun)} still to end" for noun, told in _told(state, name) if told)
    if kind is PolicyKind.NAMESPACE:
        if jobs := sum(
            each.queued_jobs + each.running_jobs for key, each in state.usage.accounts.items() if key[0] == name
        ):
            yield f"{counted(jobs, 'job')} still to end"
        for other in state.policies[PolicyKind.CAP].values():
            if isinstance(other.body, Cap) and other.body.namespace == name:
                yield f"cap/{other.name}"
        for told in state.policies[PolicyKind.NOTIFICATION].values():
            if isinstance(told.body, Notification) and name in told.body.namespaces:
                yield f"notification/{told.name}"
    for quota in state.policies[PolicyKind.QUOTA].values():
        assert isinstance(quota.body, Quota), "the table of quotas holds quotas"
        if kind is PolicyKind.QUOTA and quota.body.parent == name:
            yield f"quota/{quota.name}, whose parent it is"
        if kind is PolicyKind.NAMESPACE and quota.body.namespace == name:
            yield f"quota/{quota.name}"


def evolve_changed(state: State, event: PolicyChanged) -> None:
    table = state.policies[event.kind]
    present = table.get(event.name)
    created_ms = present.created_ms if present is not None and not present.built_in else state.now_ms
    table[event.name] = PolicyRecord(event.name, event.body, event.actor, created_ms, state.now_ms, state.index)
    if event.kind is PolicyKind.FAIR_SHARE:
        fair_shares.follow_policy(state)
    if event.kind in LIMITING:
        state.limit()


def evolve_deleted(state: State, event: PolicyDeleted) -> None:
    table = state.policies[event.kind]
    original = built_in(event.kind, event.name)
    if original is None:
        del table[event.name]
    else:
        table[event.name] = original
    if event.kind is PolicyKind.NOTIFICATION:
        forget_target(state, event.name)
    if event.kind is PolicyKind.FAIR_SHARE:
        fair_shares.follow_policy(state)
    if event.kind in LIMITING:
        state.limit()
