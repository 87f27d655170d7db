"""Policies: queues, quotas, caps, prices and the like, put whole and deleted whole."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from hasched.api.call import Call, Consistency
from hasched.api.jobs import ReadOne
from hasched.api.names import check_policy
from hasched.api.problem import refusal
from hasched.api.routing import Routes
from hasched.model.errors import NotFound, OutcomeUnknown
from hasched.model.kinds import suggest
from hasched.model.policy import PolicyKind
from hasched.model.policy_text import name_of, parse_policy
from hasched.model.views import PolicyPage, PolicyView
from hasched.statemachine import queries
from hasched.statemachine.commands import DeletePolicy, PutPolicy
from hasched.statemachine.queries.names import policy_hint, with_hint
from hasched.statemachine.rules import policies

MAX_POLICY_BYTES = 1024 * 1024
_CHECKED_IN_A_TURN = 20
_NAMING = (
    PolicyKind.RESERVATION,
    PolicyKind.FAIR_SHARE,
    PolicyKind.PRICE,
)  # where there may be a slip that the state machine takes as it is

routes = Routes("policies")


class ListPolicies(msgspec.Struct, frozen=True, kw_only=True):
    kind: Annotated[str | None, msgspec.Meta(description="Only of this kind.")] = None
    consistency: Consistency = "linearizable"


class ChangePolicy(msgspec.Struct, frozen=True, kw_only=True):
    if_index: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None,
        msgspec.Meta(description="Only if the policy's `log_index` is still this; 0: only if nobody has put it."),
    ] = None


class PutPolicyQuery(ChangePolicy, frozen=True, kw_only=True):
    allow_unknown_nodes: Annotated[
        bool, msgspec.Meta(description="Of a reservation: its nodes need not be there yet.")
    ] = False


class PolicyCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`policies` are documents with their `kind` and `name`."""

    policies: list[dict[str, Any]]
    allow_unknown_nodes: bool = False


@routes.add("GET", "/v1/policies")
async def list_policies(call: Call, query: ListPolicies) -> PolicyPage:
    """List the policies, with those that are built in."""
    kind = kind_named(query.kind) if query.kind is not None else None
    return queries.list_policies(await call.read_state(query.consistency), kind)


@routes.add("GET", "/v1/policies/{kind}/{name}")
async def show_policy(call: Call, kind: str, name: str, query: ReadOne) -> PolicyView:
    """Show a policy."""
    known = kind_named(kind)
    view = queries.policy_view(await call.read_state(query.consistency), known, name)
    if view is None:
        hint = policy_hint(call.context.replica.state, known, name)
        raise NotFound(f"there is no {kind}/{name[:128]}", hint, code="no_such_policy")
    return view


@routes.add("PUT", "/v1/policies/{kind}/{name}", body_bytes=MAX_POLICY_BYTES, document="PolicyDocument")
async def put_policy(call: Call, kind: str, name: str, query: PutPolicyQuery, body: bytes) -> PolicyView:
    """Put a policy, a new one or in place of what has that name.

    The body is the policy's document (docs/scheduling.md) as JSON. What is put is the whole of it: a key that is left out
    has its default. Putting what is there already changes nothing.
    """
    known, parsed = parse_policy(kind_named(kind).value, name, body)
    if known in _NAMING:
        check_policy(await call.read_state("linearizable"), name, parsed, query.allow_unknown_nodes)
    await call.propose(PutPolicy(kind=known, name=name, body=parsed, actor=call.actor, if_index=query.if_index))
    view = queries.policy_view(call.context.replica.state, known, name)
    if view is None:
        raise OutcomeUnknown("it was put, and deleted before it could be shown", "look again")
    return view


@routes.add("POST", "/v1/policies/check", status=204, body_bytes=8 * MAX_POLICY_BYTES)
async def check_policies(call: Call, body: PolicyCheck) -> None:
    """Say whether policies could be put, one after the other. Nothing is changed.

    Each is checked as if those before it had been put; the first that would be refused is answered as it would be.
    """
    twin = policies.trial(await call.read_state("linearizable"))
    for number, document in enumerate(body.policies, 1):
        kind, parsed = parse_policy(*(named := name_of(document)), document)
        if kind in _NAMING:
            check_policy(twin, named[1], parsed, body.allow_unknown_nodes)
        command = PutPolicy(kind=kind, name=named[1], body=parsed, actor=call.actor)
        if refused := policies.try_put(twin, command):
            raise refusal(with_hint(refused, command, twin))
        if not number % _CHECKED_IN_A_TURN:
            await asyncio.sleep(0)


@routes.add("DELETE", "/v1/policies/{kind}/{name}", status=204)
async def delete_policy(call: Call, kind: str, name: str, query: ChangePolicy) -> None:
    """Delete a policy that nothing refers to. One that stood in place of a built-in one gives way to that."""
    await call.propose(DeletePolicy(kind=kind_named(kind), name=name, actor=call.actor, if_index=query.if_index))


def kind_named(kind: str) -> PolicyKind:
    """Raises NotFound."""
    try:
        return PolicyKind(kind)
    except ValueError:
        known = [each.value for each in PolicyKind]
        hint = suggest(kind, known) or f"there are: {', '.join(known)}"
        raise NotFound(f"there is no kind of policy called {kind[:40]!r}", hint, code="no_such_kind") from None
