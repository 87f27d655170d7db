"""Shares: how much each account has used of what is its due, as keys to be ordered by.

Usage is compared at three levels, as a tree (Slurm's Fair Tree): queues of one priority, namespaces, and users within their
namespace; each level by usage divided by weight. What is running or on its way is counted as if it had run on for a
sixteenth of a half-life, so accounts that have used the same start in turns.

Keys are logarithms in steps: half a percent for users, two for namespaces and queues. So what somebody uses changes his place
now and then, and not with every task; within a step the older job is first. All keys of a level are of one time.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log2

from hasched.model.policy import WEIGHT_ONE, FairShare, Queue
from hasched.statemachine.fair_share import Account as Used
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State

STEPS_OF_USERS, STEPS_OF_GROUPS = 128, 32  # for each doubling
LITTLE = 3_600_000_000  # thousandths of a core times milliseconds, a core-hour: differences below it hardly count
AHEAD = 16  # a half-life divided by this is how long running work is counted in advance
REFRESH_MS = 10_000  # keys of accounts of which nothing is heard are looked at again after so long,
REFRESHED_AT_ONCE = 100  # so many at a time
_LAST = 2**40  # the key of a weight of 0

User = tuple[str, str]  # namespace and name


class ShareKeys:
    def __init__(self, state: State, policy: FairShare) -> None:
        self._state = state
        self._weights = dict(policy.weights)
        self._ahead_ms = policy.half_life_ms // AHEAD
        self.on_their_way: dict[tuple[str, ...], int] = {}  # rates, by queue, by namespace, or by both parts of a user
        self._queues: dict[str, int] = {}
        self._spread = False  # whether there is one more queue or namespace now, so that all places may be others
        self._namespaces: dict[str, dict[User, None]] = {}  # with those of their users who have a key
        self._of_namespaces: dict[str, int] = {}
        self._users: dict[User, int] = {}
        self._noted: dict[User, None] = {}
        self._noted_queues: dict[str, None] = {}
        self._round: list[User] = []
        self._round_ms = state.now_ms

    def take(self, queue: str, user: User, rate: int) -> None:
        """So much more is on its way."""
        for key in (("queue", queue, ""), ("namespace", user[0], ""), ("user", *user)):
            left = self.on_their_way.get(key, 0) + rate
            if left:
                self.on_their_way[key] = left
            else:
                self.on_their_way.pop(key, None)

    def note(self, queue: str, user: User) -> None:
        """What this user uses has changed; `refresh` looks at it."""
        self._noted[user] = None
        self._noted_queues[queue] = None

    def of_queue(self, queue: str) -> int:
        key = self._queues.get(queue)
        if key is None:
            key = self._queues[queue] = self._queue_key(queue)
            self._spread = len(self._queues) > 1
        return key if len(self._queues) > 1 else 0

    def of_account(self, user: User) -> tuple[int, int]:
        """The keys of a user's namespace and of the user."""
        key = self._users.get(user)
        if key is None:
            key = self._users[user] = self._user_key(user)
            self._namespaces.setdefault(user[0], {})[user] = None
            if user[0] not in self._of_namespaces:
                self._of_namespaces[user[0]] = self._namespace_key(user[0])
                self._spread = len(self._of_namespaces) > 1
        return self._of_namespaces[user[0]] if len(self._of_namespaces) > 1 else 0, key

    def refresh(self) -> Iterable[User] | None:
        """Whose keys have changed; None: anybody's may have."""
        changed: dict[User, None] = {}
        all_of_them = self._look_at_queues() or self._spread
        self._spread = False
        if self._state.now_ms - self._round_ms >= REFRESH_MS and not self._round:
            self._round_ms, self._round = self._state.now_ms, list(self._users)
        for _ in range(min(len(self._round), REFRESHED_AT_ONCE)):
            self._noted[self._round.pop()] = None
        for user in self._noted:
            before = self._users.get(user)
            if before is None:
                continue
            key = self._user_key(user)
            if key != before:
                self._users[user] = key
                changed[user] = None
            namespace = user[0]
            key = self._namespace_key(namespace)
            if key != self._of_namespaces[namespace]:
                self._of_namespaces[namespace] = key
                if len(self._of_namespaces) > 1:
                    changed.update(self._namespaces[namespace])
        self._noted.clear()
        return None if all_of_them else changed

    def _look_at_queues(self) -> bool:
        """Whether the order of the queues may be another one now."""
        moved = False
        for queue in self._noted_queues:
            before = self._queues.get(queue)
            if before is not None and (key := self._queue_key(queue)) != before:
                self._queues[queue] = key
                moved = len(self._queues) > 1
        self._noted_queues.clear()
        return moved

    def _queue_key(self, queue: str) -> int:
        shares = self._state.shares
        policy = find_policy(self._state.policies, Queue, queue)
        weight = policy.weight_milli if policy is not None else WEIGHT_ONE
        used = shares.queues.get(queue) if shares is not None else None
        return self._key(used, ("queue", queue, ""), weight, STEPS_OF_GROUPS)

    def _namespace_key(self, namespace: str) -> int:
        shares = self._state.shares
        weight = self._weights.get(namespace, WEIGHT_ONE)
        used = shares.namespaces.get(namespace) if shares is not None else None
        return self._key(used, ("namespace", namespace, ""), weight, STEPS_OF_GROUPS)

    def _user_key(self, user: User) -> int:
        shares = self._state.shares
        weight = self._weights.get("/".join(user), WEIGHT_ONE)
        used = shares.users.get(user) if shares is not None else None
        return self._key(used, ("user", *user), weight, STEPS_OF_USERS)

    def _key(self, used: Used | None, name: tuple[str, ...], weight: int, steps: int) -> int:
        shares = self._state.shares
        if not weight or shares is None:
            return _LAST
        rate = (used.rate if used is not None else 0) + self.on_their_way.get(name, 0)
        usage = shares.usage(used, self._state.now_ms) + rate * self._ahead_ms
        return int(steps * log2(1 + usage * WEIGHT_ONE / (weight * LITTLE)))
