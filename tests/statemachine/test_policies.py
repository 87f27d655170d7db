"""Policies in the state: put, changed under a condition, deleted unless something needs them, kept across snapshots."""

from __future__ import annotations

import pytest

from hasched.model.policy import (
    Amounts,
    Cap,
    Charges,
    FairShare,
    Namespace,
    Policy,
    PolicyKind,
    Price,
    PriorityClass,
    Queue,
    QueueState,
    Quota,
    Reservation,
    ResourceClass,
    kind_of,
)
from hasched.model.spec import Resources
from hasched.statemachine import queries
from hasched.statemachine.commands import DeletePolicy, PutPolicy
from hasched.statemachine.digest import digest
from hasched.statemachine.events import PolicyChanged
from hasched.statemachine.policies import find_policy
from hasched.statemachine.snapshot import capture, restore
from tests.statemachine.machine import Machine


def put(machine: Machine, name: str, body: Policy, if_index: int | None = None) -> str:
    """Empty, or the code of the refusal."""
    outcome = machine.outcome(PutPolicy(kind=kind_of(body), name=name, body=body, actor="ada", if_index=if_index))
    return getattr(outcome, "code", "")


def delete(machine: Machine, kind: PolicyKind, name: str, if_index: int | None = None) -> str:
    return getattr(machine.outcome(DeletePolicy(kind=kind, name=name, actor="ada", if_index=if_index)), "code", "")


def test_a_policy_remembers_who_changed_it_when_and_in_which_entry() -> None:
    machine = Machine()
    assert put(machine, "batch", Queue(priority=1)) == ""
    created_ms, machine.now_ms = machine.now_ms, machine.now_ms + 5
    assert put(machine, "batch", Queue(priority=2)) == ""
    view = queries.policy_view(machine.state, PolicyKind.QUEUE, "batch")
    assert view is not None
    assert (view.document, view.actor) == ({"priority": 2}, "ada")
    assert (view.created_ms, view.changed_ms, view.log_index) == (created_ms, machine.now_ms, machine.state.index)
    assert not view.built_in
    assert find_policy(machine.state.policies, Queue, "batch") == Queue(priority=2)
    assert find_policy(machine.state.policies, Queue, "none") is None


def test_putting_what_is_there_changes_nothing() -> None:
    machine = Machine()
    put(machine, "batch", Queue(priority=1))
    assert (
        machine.do(
            PutPolicy(kind=PolicyKind.QUEUE, name="batch", body=Queue(priority=1), actor="bob", if_index=77)
        ).events
        == []
    )


def test_a_change_can_depend_on_what_was_seen() -> None:
    machine = Machine()
    assert put(machine, "batch", Queue(priority=1), if_index=3) == "policy_changed"
    assert put(machine, "batch", Queue(priority=1), if_index=0) == ""
    index = machine.state.index
    assert put(machine, "batch", Queue(priority=2), if_index=0) == "policy_changed"
    assert delete(machine, PolicyKind.QUEUE, "batch", if_index=index + 1) == "policy_changed"
    assert put(machine, "batch", Queue(priority=2), if_index=index) == ""
    assert delete(machine, PolicyKind.QUEUE, "batch", if_index=machine.state.index) == ""
    assert delete(machine, PolicyKind.QUEUE, "batch") == "no_such_policy"


def test_what_is_built_in_can_be_replaced_and_comes_back() -> None:
    machine = Machine()
    new = digest(machine.state)
    assert delete(machine, PolicyKind.PRIORITY_CLASS, "high") == "policy_built_in"
    assert put(machine, "high", PriorityClass(value=3), if_index=0) == ""
    assert find_policy(machine.state.policies, PriorityClass, "high") == PriorityClass(value=3)
    assert delete(machine, PolicyKind.PRIORITY_CLASS, "high") == ""
    high = find_policy(machine.state.policies, PriorityClass, "high")
    assert high is not None and high.value == 900
    machine.state.index = machine.state.now_ms = machine.state.plan_index = 0
    assert digest(machine.state) == new


def test_what_others_refer_to_stays() -> None:
    machine = Machine()
    assert put(machine, "red", Quota(namespace="red")) == "unknown_namespace"
    assert put(machine, "red", Namespace()) == ""
    assert put(machine, "red", Quota(namespace="red", parent="company")) == "unknown_quota"
    assert put(machine, "company", Quota(nominal=Amounts(gpus=8))) == ""
    assert put(machine, "red", Quota(namespace="red", parent="company")) == ""
    assert delete(machine, PolicyKind.NAMESPACE, "red") == "policy_in_use"
    assert delete(machine, PolicyKind.QUOTA, "company") == "policy_in_use"
    assert delete(machine, PolicyKind.QUOTA, "red") == ""
    assert delete(machine, PolicyKind.QUOTA, "company") == ""
    assert delete(machine, PolicyKind.NAMESPACE, "red") == ""


def test_a_quota_of_each_user_has_no_parts() -> None:
    machine = Machine()
    put(machine, "people", Quota(each_user=True))
    assert put(machine, "red", Quota(parent="people")) == "unknown_quota"
    put(machine, "company", Quota())
    put(machine, "red", Quota(parent="company"))
    assert put(machine, "company", Quota(each_user=True)) == "policy_in_use"
    assert put(machine, "each", Quota(each_user=True, parent="company")) == "invalid_policy"


def test_no_quota_is_a_part_of_itself() -> None:
    machine = Machine()
    put(machine, "a", Quota())
    put(machine, "b", Quota(parent="a"))
    assert put(machine, "a", Quota(parent="b")) == "quota_cycle"
    assert put(machine, "a", Quota(parent="a")) == "quota_cycle"
    for above, name in zip("bcdefgh", "cdefghi", strict=True):
        last = put(machine, name, Quota(parent=above))
    assert last == ""
    assert put(machine, "j", Quota(parent="i")) == "quota_cycle"


def test_no_tree_of_quotas_grows_deeper_at_its_root() -> None:
    machine = Machine()
    for tree in ("a", "b"):
        for level in range(6):
            last = put(machine, f"{tree}{level}", Quota(parent=f"{tree}{level - 1}" if level else ""))
        assert last == ""
    assert put(machine, "a0", Quota(parent="b5")) == put(machine, "a0", Quota(parent="b3")) == "quota_cycle"
    assert put(machine, "a0", Quota(parent="b2")) == ""
    assert put(machine, "b0", Quota(description="It stands where it stood.")) == ""
    assert put(machine, "a5", Quota(parent="a4", description="So does the deepest.")) == ""


@pytest.mark.parametrize(
    ("kind", "name"), [(PolicyKind.QUEUE, "a/b"), (PolicyKind.QUEUE, ""), (PolicyKind.QUOTA, "batch")]
)
def test_what_is_no_policy_is_not_held(kind: PolicyKind, name: str) -> None:
    command = PutPolicy(kind=kind, name=name, body=Queue(), actor="ada")
    assert Machine().refusal(command) == "invalid_policy"


def test_snapshots_and_digests_have_them() -> None:
    machine, other = Machine(), Machine()
    for one in (machine, other):
        put(one, "a", Queue())
        put(one, "b", Queue(priority=1))
    assert digest(machine.state) == digest(other.state)
    put(machine, "b", Queue(state=QueueState.CLOSED))
    put(other, "b", Queue(priority=2))
    assert digest(machine.state) != digest(other.state)
    captured = capture(machine.state)
    again = restore(iter(captured.next_chunk, None))
    assert digest(again) == digest(machine.state)
    assert queries.list_policies(again) == queries.list_policies(machine.state)


def test_they_are_listed_in_an_order_in_which_they_can_be_put() -> None:
    machine = Machine()
    put(machine, "red", Namespace())
    put(machine, "red", Quota(namespace="red"))
    kinds = [view.kind for view in queries.list_policies(machine.state).policies]
    assert kinds == sorted(kinds, key=list(PolicyKind).index)
    assert [view.name for view in queries.list_policies(machine.state, PolicyKind.NAMESPACE).policies] == [
        "default",
        "red",
    ]
    assert isinstance(machine.events[-1], PolicyChanged)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        pytest.param("q", Queue(weight_milli=-5), id="a queue with less than no weight"),
        pytest.param("q", Queue(priority=2**60), id="a queue with a priority out of bounds"),
        pytest.param("q", Queue(max_running=-1), id="a queue that runs less than nothing"),
        pytest.param("p", PriorityClass(value=-1), id="a class of a negative priority"),
        pytest.param("r", ResourceClass(resources=Resources(cpu_milli=-1)), id="a class that gives back CPUs"),
        pytest.param("r", ResourceClass(resources=Resources(memory_bytes=2**60)), id="a class with too much memory"),
        pytest.param(
            "r",
            ResourceClass(resources=Resources(countables=(("b", 1), ("a", 0)))),
            id="a class of unsorted countables",
        ),
        pytest.param("default", FairShare(charge=Charges(cpu_milli=-1)), id="a charge that pays"),
        pytest.param("default", FairShare(weights=(("b", 1), ("a", 1))), id="unsorted weights"),
        pytest.param("default", FairShare(weights=(("../a", 1),)), id="a weight of no account"),
        pytest.param("l", Quota(nominal=Amounts(cpu_milli=-1)), id="a quota of less than nothing"),
        pytest.param("l", Quota(nominal=Amounts(gpu_ms_per_week=-1)), id="a quota of less than no GPU time"),
        pytest.param("l", Quota(borrow_limit=Amounts(cpu_milli=1)), id="a root that borrows"),
        pytest.param("l", Quota(user="ada", each_user=True), id="a quota of one user and of each"),
        pytest.param("l", Quota(nominal=Amounts(countables=(("a/b", 1),))), id="a quota of what can't be named so"),
        pytest.param("c", Cap(units=-1), id="a cap of less than nothing"),
        pytest.param("c", Cap(units=1, match="ada"), id="a semaphore that matches"),
        pytest.param("e", Price(cpu_micro=-1), id="a price that pays"),
        pytest.param("e", Price(gpu_models=(("", 1),)), id="a price of no model"),
        pytest.param("m", Reservation(nodes=(), start_ms=1, end_ms=2), id="a reservation of nothing"),
        pytest.param("m", Reservation(nodes=("n1",), start_ms=2, end_ms=1), id="a reservation that ends first"),
        pytest.param("m", Reservation(nodes=("n1",), start_ms=1, end_ms=2**60), id="a reservation without an end"),
        pytest.param("n", Namespace(description="x" * 10_000), id="a long story"),
    ],
)
def test_a_body_that_no_document_could_give_is_refused_where_it_is_applied(name: str, body: Policy) -> None:
    machine = Machine()
    command = PutPolicy(kind=kind_of(body), name=name, body=body, actor="ada")
    assert machine.refusal(command) == "invalid_policy"
