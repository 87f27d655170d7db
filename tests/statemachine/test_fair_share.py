"""What accounts have used: charged while it runs, halved by time, and never far from the exact value."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.policy import Charges, FairShare, PolicyKind
from hasched.model.spec import Resources
from hasched.statemachine.commands import DeletePolicy, PutPolicy, UpdateJob
from hasched.statemachine.digest import digest
from hasched.statemachine.fair_share import BITS, MOST, ONE, Account, Shares, growth_at, rate_of
from hasched.statemachine.snapshot import capture, restore
from tests.statemachine.machine import GIB, T0, Machine

HOUR = 3_600_000
DIGITS = 60


def used(shares: Shares, now_ms: int, user: str = "ada") -> int:
    return shares.usage(shares.users.get(("default", user)), now_ms)


@pytest.mark.parametrize("half_life_ms", [60_000, 7 * 24 * HOUR, 366 * 24 * HOUR])
@given(data=st.data())
def test_growth_is_a_power_of_two_to_46_bits(half_life_ms: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, half_life_ms - 1))
    with localcontext(prec=DIGITS):
        exact = Decimal(2) ** (Decimal(part) / half_life_ms)
        assert abs(growth_at(part, half_life_ms) / Decimal(ONE) - exact) <= Decimal(2) ** (2 - BITS)


CHANGES = st.lists(st.tuples(st.integers(0, 5 * 60_000), st.integers(0, 10**9)), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(CHANGES, st.integers(0, 300_000), st.sampled_from([60_000, 61_001, 24 * HOUR]))
def test_usage_is_as_exact_as_is_stated(changes: list[tuple[int, int]], wait_ms: int, half_life_ms: int) -> None:
    """The exact value by the closed form, piece by piece, in decimals of sixty digits."""
    shares = Shares(FairShare(half_life_ms=half_life_ms), T0)
    now_ms, rate, largest = T0, 0, 0
    with localcontext(prec=DIGITS):
        exact = Decimal(0)

        def go_on(to_ms: int) -> Decimal:
            left = Decimal(2) ** (Decimal(now_ms - to_ms) / half_life_ms)
            return exact * left + rate * half_life_ms / Decimal(2).ln() * (1 - left)

        for after_ms, new_rate in changes:
            exact, now_ms = go_on(now_ms + after_ms), now_ms + after_ms
            shares.change_rate(now_ms, "default", "default", "ada", new_rate - rate)
            rate, largest = new_rate, max(largest, new_rate)
        allowed = len(changes) + 4 + Decimal(largest) * half_life_ms * Decimal(2) ** -44
        assert abs(used(shares, now_ms) - exact) <= allowed
        assert abs(used(shares, now_ms + wait_ms) - go_on(now_ms + wait_ms)) <= allowed
        shares.roll(now_ms + wait_ms)
        assert abs(used(shares, now_ms + wait_ms) - go_on(now_ms + wait_ms)) <= allowed


def test_looking_changes_nothing() -> None:
    shares = Shares(FairShare(half_life_ms=60_000), T0)
    shares.change_rate(T0, "default", "default", "ada", 1000)
    before = shares.records()
    assert used(shares, T0 + 10**9) > used(shares, T0 + 10)
    assert (shares.records(), shares.epoch) == (before, T0 // 60_000)


def test_usage_halves_every_half_life_and_who_used_nothing_lately_is_forgotten() -> None:
    shares = Shares(FairShare(half_life_ms=60_000), T0)
    shares.change_rate(T0, "default", "default", "ada", 64_000)
    shares.change_rate(T0 + 1000, "default", "default", "ada", -64_000)
    first = used(shares, T0 + 1000)
    assert first == pytest.approx(64_000_000, rel=0.01)
    for halvings in range(1, 10):
        assert used(shares, T0 + 1000 + halvings * 60_000) == pytest.approx(first / 2**halvings, abs=3)
    shares.roll(T0 + 40 * 60_000)
    assert not list(shares.accounts())


def test_sums_end_where_they_still_fit_a_snapshot() -> None:
    shares = Shares(FairShare(half_life_ms=366 * 24 * HOUR), T0)
    shares.change_rate(T0, "default", "default", "ada", 10**12)
    shares.roll(T0 + 366 * 24 * HOUR)
    shares.change_rate(T0 + 400 * 24 * HOUR, "default", "default", "ada", 0)
    assert max(account.scaled for account in shares.accounts()) == MOST


@pytest.mark.parametrize(
    ("request_", "rate"),
    [
        (Resources(cpu_milli=1500), 1500),
        (Resources(cpu_milli=1000, memory_bytes=16 * GIB), 4000),
        (Resources(cpu_milli=4000, gpus=2), 16_000),
        (Resources(), 1),
    ],
)
def test_the_largest_of_what_a_task_takes_is_charged(request_: Resources, rate: int) -> None:
    assert rate_of(request_, Charges()) == rate


class TestInTheState:
    def put(self, machine: Machine, **fields: object) -> None:
        body = FairShare(**{"half_life_ms": HOUR, **fields})  # type: ignore[arg-type]
        machine.do(PutPolicy(kind=PolicyKind.FAIR_SHARE, name="default", body=body, actor="ada"))

    def shares(self, machine: Machine) -> Shares:
        assert machine.state.shares is not None
        return machine.state.shares

    def test_nothing_is_counted_unless_somebody_wants_it(self) -> None:
        machine = Machine()
        machine.node()
        machine.place(machine.submit())
        assert machine.state.shares is None

    def test_a_task_is_charged_from_its_placement_to_its_end(self) -> None:
        machine = Machine()
        machine.node()
        self.put(machine)
        job = machine.submit(resources=Resources(cpu_milli=2000))
        machine.place(job)
        machine.wait(10_000)
        machine.end(job)
        shares = self.shares(machine)
        assert used(shares, machine.now_ms) == pytest.approx(20_000_000, rel=0.01)
        machine.wait(HOUR)
        assert used(shares, machine.now_ms) == pytest.approx(10_000_000, rel=0.01)
        assert used(shares, machine.now_ms) == shares.usage(shares.queues["default"], machine.now_ms)
        assert used(shares, machine.now_ms) == shares.usage(shares.namespaces["default"], machine.now_ms)

    def test_what_runs_already_is_counted_from_when_it_is_switched_on(self) -> None:
        machine = Machine()
        machine.node()
        machine.place(machine.submit(count=2), 0, 1)
        machine.wait(HOUR)
        self.put(machine)
        assert used(self.shares(machine), machine.now_ms) == 0
        machine.wait(1000)
        assert used(self.shares(machine), machine.now_ms) == pytest.approx(2_000_000, rel=0.01)

    def test_another_half_life_leaves_what_was_used_and_another_charge_what_runs(self) -> None:
        machine = Machine()
        machine.node()
        self.put(machine)
        machine.place(machine.submit())
        machine.wait(50_000)
        before = used(self.shares(machine), machine.now_ms)
        self.put(machine, half_life_ms=2 * HOUR, charge=Charges(cpu_milli=3000))
        shares = self.shares(machine)
        assert used(shares, machine.now_ms) == pytest.approx(before, abs=2)
        assert [account.rate for account in shares.accounts()] == [3000] * 3
        self.put(machine, half_life_ms=2 * HOUR, charge=Charges(cpu_milli=3000), weights=(("default", 2000),))
        assert used(shares, machine.now_ms) == pytest.approx(before, abs=2)

    def test_switched_off_it_is_forgotten(self) -> None:
        machine = Machine()
        self.put(machine)
        self.put(machine, enabled=False)
        assert machine.state.shares is None
        self.put(machine)
        machine.do(DeletePolicy(kind=PolicyKind.FAIR_SHARE, name="default", actor="ada"))
        assert machine.state.shares is None

    def test_a_job_that_changes_its_queue_takes_what_runs_with_it(self) -> None:
        machine = Machine()
        machine.node()
        self.put(machine)
        job = machine.submit(count=3)
        machine.place(job, 0, 1)
        machine.do(UpdateJob(job_id=job.id, actor="ada", queue="batch"))
        assert {name: account.rate for name, account in self.shares(machine).queues.items()} == {
            "default": 0,
            "batch": 2000,
        }

    def test_a_restored_state_has_the_same_accounts(self) -> None:
        machine = Machine()
        machine.node()
        self.put(machine)
        machine.place(machine.submit(count=3), 0, 2)
        machine.wait(12_345)
        captured = capture(machine.state)
        before = digest(machine.state)
        restored = restore(iter(captured.next_chunk, None))
        assert restored.shares is not None
        assert digest(restored) == before
        for now_ms in (machine.now_ms, machine.now_ms + 3 * HOUR):
            assert used(restored.shares, now_ms) == used(self.shares(machine), now_ms) > 0

    @pytest.mark.parametrize("fields", [{"half_life_ms": 0}, {"half_life_ms": 10**15}, {"ageing_ms": -1}])
    def test_what_can_not_be_counted_by_is_refused(self, fields: dict[str, int]) -> None:
        body = FairShare(**fields)
        refused = PutPolicy(kind=PolicyKind.FAIR_SHARE, name="default", body=body, actor="ada")
        assert Machine().refusal(refused) == "invalid_policy"

    def test_there_is_one(self) -> None:
        other = PutPolicy(kind=PolicyKind.FAIR_SHARE, name="other", body=FairShare(), actor="ada")
        assert Machine().refusal(other) == "invalid_policy"


def test_an_account_that_nobody_has_used_has_used_nothing() -> None:
    assert Shares(FairShare(), T0).usage(None, T0) == Shares(FairShare(), T0).usage(Account(), T0 + 10) == 0
