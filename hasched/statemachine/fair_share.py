"""Fair share: what each account has used, with a half-life, in integers that are the same on every manager.

An account's usage halves with every half-life that passes, as in Slurm's multifactor plugin (PriorityDecayHalfLife). What runs
is charged while it runs: a task adds its rate (`rate_of`, thousandths of a core) for every millisecond that it holds
resources. So with a constant rate r, usage moves towards r * H / ln 2 for a half-life H.

Nothing is decayed step by step, which would round each time. Usage is kept as it would have to be at the beginning of its
epoch to have decayed to what it is now (forward decay: Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009): at t milliseconds
into an epoch a charge counts 2^(t/H) times, and usage is that sum divided by 2^(now/H). An epoch is one half-life, and at its
end all sums are halved.

Error: a change of rate rounds once, by half a unit (a thousandth of a core for a millisecond), the end of an epoch twice, and
growth is known to 2^-46. So after n changes usage is off by at most n + 4 units and r * H * 2^-44 for the largest rate r, and
every half-life forgets half of that. Sums end at `MOST`: 10 million cores for a month's half-life.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import msgspec

from hasched.model.policy import Charges, FairShare
from hasched.model.spec import Resources

BITS = 48
ONE = 1 << BITS  # in fixed point
MOST = 2**62
MOST_RATE = 2**36  # of a task: 68 million cores. So 2^27 tasks of an account still add up to what a snapshot can hold
THE_POLICY = "default"  # the name of the one that counts

_FINE = 96  # bits of the roots
_INVERSE_LN_2 = 406082553034800  # 1 / ln 2
_GIB = 2**30


def _roots() -> Iterator[int]:
    """2^(1/2), 2^(1/4), 2^(1/8)…"""
    root = 2 << _FINE
    for _ in range(BITS):
        root = isqrt(root << _FINE)
        yield root


_ROOTS = tuple(_roots())


def growth_at(part_ms: int, half_life_ms: int) -> int:
    """2^(part/half life) in fixed point, for a part of one half-life: from 1 to 2."""
    exponent = (part_ms << BITS) // half_life_ms
    growth = 1 << _FINE
    for place, root in enumerate(_ROOTS, 1):
        if exponent >> (BITS - place) & 1:
            growth = growth * root >> _FINE
    return growth >> (_FINE - BITS)


def rate_of(request: Resources, charges: Charges) -> int:
    """What a task is charged for each millisecond: the largest of what it takes of each resource, in thousandths of a core.

    The largest and not the sum: who takes a node's GPUs keeps others from the node whether he takes the cores or not
    (dominant resource: Ghodsi et al., NSDI 2011; ADR 0018 says why at fixed rates of exchange).
    """
    rate = max(
        request.cpu_milli * charges.cpu_milli // 1000,
        request.memory_bytes * charges.memory_milli // _GIB,
        request.gpus * charges.gpu_milli,
        1,
    )
    return min(rate, MOST_RATE)


class Account(msgspec.Struct, array_like=True, gc=False):
    """Usage as of when the epoch had grown to `growth`, scaled to its beginning; and what runs since."""

    scaled: int = 0
    rate: int = 0
    growth: int = ONE


class AccountRecord(msgspec.Struct, frozen=True, array_like=True):
    """An account in a snapshot."""

    level: str
    name: str
    user: str
    account: Account


class Shares:
    """Usage of queues, namespaces and users. Only `evolve` writes."""

    def __init__(self, policy: FairShare, now_ms: int) -> None:
        self.half_life_ms = policy.half_life_ms
        self.charges = policy.charge
        self.epoch = now_ms // self.half_life_ms
        self.queues: dict[str, Account] = {}
        self.namespaces: dict[str, Account] = {}
        self.users: dict[tuple[str, str], Account] = {}  # by namespace and name
        self._known = (0, ONE)  # a part of the epoch, and its growth

    def change_rate(self, now_ms: int, queue: str, namespace: str, user: str, rate: int) -> None:
        """From now on so much more is running (less, if negative)."""
        self.roll(now_ms)
        growth = self._growth(now_ms)
        for account in (
            self.queues.setdefault(queue, Account()),
            self.namespaces.setdefault(namespace, Account()),
            self.users.setdefault((namespace, user), Account()),
        ):
            self._advance(account, growth)
            account.rate += rate
            assert account.rate >= 0, "what starts to run is what stops"

    def roll(self, now_ms: int) -> None:
        """Begin the epoch of this time, if it isn't the current one; who has neither used nor runs anything is forgotten."""
        epoch = now_ms // self.half_life_ms
        for _ in range(min(epoch - self.epoch, 64)):
            for account in self.accounts():
                self._advance(account, 2 * ONE)
                account.scaled, account.growth = account.scaled >> 1, ONE
        if epoch > self.epoch:
            self.epoch = epoch
            self.queues = {name: each for name, each in self.queues.items() if each.scaled or each.rate}
            self.namespaces = {name: each for name, each in self.namespaces.items() if each.scaled or each.rate}
            self.users = {key: each for key, each in self.users.items() if each.scaled or each.rate}

    def accounts(self) -> Iterator[Account]:
        yield from self.queues.values()
        yield from self.namespaces.values()
        yield from self.users.values()

    def usage(self, account: Account | None, now_ms: int) -> int:
        """What the account has used by now, decayed, in thousandths of a core times milliseconds. Changes nothing."""
        if account is None:
            return 0
        epochs = now_ms // self.half_life_ms - self.epoch
        if epochs <= 0:
            growth = self._growth(max(now_ms, self.epoch * self.half_life_ms))
            return (self._grown(account, growth) << BITS) // growth
        later = Account(account.scaled, account.rate, account.growth)
        for _ in range(min(epochs, 64)):
            later = Account(self._grown(later, 2 * ONE) >> 1, later.rate)
        growth = growth_at(now_ms % self.half_life_ms, self.half_life_ms)
        return (self._grown(later, growth) << BITS) // growth

    def take(self, policy: FairShare, now_ms: int) -> None:
        """Go by another half-life from now on; usage stays what it is. Rates are to be set anew by who knows what runs."""
        before = [(account, self.usage(account, now_ms)) for account in self.accounts()]
        self.half_life_ms, self.charges = policy.half_life_ms, policy.charge
        self.epoch, self._known = now_ms // self.half_life_ms, (0, ONE)
        growth = self._growth(now_ms)
        for account, usage in before:
            account.scaled, account.growth, account.rate = min(usage * growth >> BITS, MOST), growth, 0

    def records(self) -> list[AccountRecord]:
        """In a canonical order, and not to be changed by what happens later."""
        return [
            *(AccountRecord("queue", name, "", _copy(each)) for name, each in sorted(self.queues.items())),
            *(AccountRecord("namespace", name, "", _copy(each)) for name, each in sorted(self.namespaces.items())),
            *(AccountRecord("user", *key, _copy(each)) for key, each in sorted(self.users.items())),
        ]

    def restore(self, epoch: int, records: list[AccountRecord]) -> None:
        self.epoch = epoch
        for record in records:
            match record.level:
                case "queue":
                    self.queues[record.name] = record.account
                case "namespace":
                    self.namespaces[record.name] = record.account
                case _:
                    self.users[record.name, record.user] = record.account

    def _growth(self, now_ms: int) -> int:
        """How much the epoch has grown by now; the last answer is remembered, since many ask for the same time."""
        part = now_ms - self.epoch * self.half_life_ms
        if part != self._known[0]:
            self._known = (part, growth_at(part, self.half_life_ms))
        return self._known[1]

    def _advance(self, account: Account, growth: int) -> None:
        account.scaled = self._grown(account, growth)
        account.growth = growth

    def _grown(self, account: Account, growth: int) -> int:
        """The scaled usage once the epoch has grown so much: the integral of rate * 2^(t/H) over the time between."""
        if not account.rate or growth <= account.growth:
            return account.scaled
        more = account.rate * self.half_life_ms * (growth - account.growth) * _INVERSE_LN_2
        return min(account.scaled + (more + (1 << 2 * BITS - 1) >> 2 * BITS), MOST)


def _copy(account: Account) -> Account:
    return Account(account.scaled, account.rate, account.growth)
