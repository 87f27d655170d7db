"""Shares: how much each account has used of what is its due, as keys to be ordered by.

Usage is compared at three levels, as a tree (Slurm's Fair Tree): queues of one priority, namespaces, and users within their
namespace; each level by usage divided by weight. What is running or on its way is counted as if it had run on for a
sixteenth of a half-life, so accounts that have used the same start in turns.

Keys are logarithms in steps: half a percent for users, two for namespaces and queues. So what somebody uses changes his place
now and then, and not with every task; within a step the older job is first. A key that grows does so at once, one that falls
once in a second: everybody whom that moves has to be ranked anew, a few at a time.
"""

from __future__ import annotations

from itertools import islice
from math import log2

from hasched.model.policy import WEIGHT_ONE, FairShare, Queue
from hasched.statemachine.fair_share import Account as Used
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State

STEPS_OF_USERS, STEPS_OF_GROUPS = 128, 32  # for each doubling
LITTLE = 3_600_000_000  # thousandths of a core times milliseconds, a core-hour: differences below it hardly count
AHEAD = 16  # a half-life divided by this is how long running work is counted in advance
FALL_MS = 1_000  # so often at most keys fall
REFRESH_MS = 10_000  # keys of users of whom nothing is heard are looked at again after so long,
DUE_AT_ONCE = 150  # so many at a time,
AT_ONCE = 50  # and so many of those that fell are ranked anew
_LAST = 2**40  # the key of a weight of 0

User = tuple[str, str]  # namespace and name


class ShareKeys:
    def __init__(self, state: State, policy: FairShare) -> None:
        self._state = state
        self._weights = dict(policy.weights)
        self._ahead_ms = policy.half_life_ms // AHEAD
        self.on_their_way: dict[tuple[str, ...], int] = {}  # rates, by queue, by namespace, or by both parts of a user
        self._queues: dict[str, int] = {}
        self._namespaces: dict[str, int] = {}
        self._users: dict[str, dict[str, int]] = {}  # by namespace
        self._noted: dict[User, None] = {}  # users of whom something has changed,
        self._noted_queues: dict[str, None] = {}  # and queues
        self._due: dict[User, None] = {}  # users whose key may fall now
        self._moved: dict[User, None] = {}  # who is to be ranked anew
        self._looked_ms = self._round_ms = state.now_ms

    def take(self, queue: str, user: User, rate: int) -> None:
        """So much more is on its way; negative: not any more."""
        for key in (("queue", queue, ""), ("namespace", user[0], ""), ("user", *user)):
            left = self.on_their_way.get(key, 0) + rate
            if left:
                self.on_their_way[key] = left
            else:
                self.on_their_way.pop(key, None)
        self.note(queue, user)

    def note(self, queue: str, user: User) -> None:
        """What this user uses has changed. Keys that grow do so now, and `refresh` looks at those that fall."""
        namespace, name = user
        if queue in self._queues:
            self._queues[queue] = max(self._queues[queue], self._queue_key(queue))
            self._noted_queues[queue] = None
        if namespace in self._namespaces:
            self._namespaces[namespace] = max(self._namespaces[namespace], self._namespace_key(namespace))
            names = self._users[namespace]
            if name in names:
                names[name] = max(names[name], self._user_key(user))
            self._noted[user] = None

    def of_queue(self, queue: str) -> int:
        """The key of a queue; 0 while it is the only one."""
        key = self._queues.get(queue)
        if key is None:
            key = self._queues[queue] = self._queue_key(queue)
        return key if len(self._queues) > 1 else 0

    def of_account(self, user: User) -> tuple[int, int]:
        """The keys of a user's namespace and of the user; 0 for the only one."""
        namespace, name = user
        names = self._users.get(namespace)
        if names is None:
            names = self._users[namespace] = {}
            self._namespaces[namespace] = self._namespace_key(namespace)
        key = names.get(name)
        if key is None:
            key = names[name] = self._user_key(user)
        return self._namespaces[namespace] if len(self._namespaces) > 1 else 0, key if len(names) > 1 else 0

    def refresh(self) -> list[User]:
        """Some of those who are to be ranked anew because a key of theirs has fallen."""
        if self._state.now_ms - self._looked_ms >= FALL_MS:
            self._looked_ms = self._state.now_ms
            self._let_fall()
        for user in list(islice(self._due, DUE_AT_ONCE)):
            del self._due[user]
            names = self._users[user[0]]
            known = names.get(user[1])
            if known is not None:
                key = names[user[1]] = self._user_key(user)
                if key < known:
                    self._moved[user] = None
        moved = list(islice(self._moved, AT_ONCE))
        for user in moved:
            del self._moved[user]
        return moved

    def _let_fall(self) -> None:
        if self._state.now_ms - self._round_ms >= REFRESH_MS:
            self._round_ms = self._state.now_ms
            self._noted.update(dict.fromkeys((space, name) for space, names in self._users.items() for name in names))
            self._noted_queues.update(dict.fromkeys(self._queues))
        for queue in self._noted_queues:
            key, before = self._queue_key(queue), self._queues[queue]
            self._queues[queue] = key
            if key < before and len(self._queues) > 1:
                self._moved.update(
                    dict.fromkeys((space, name) for space, names in self._users.items() for name in names)
                )
        for namespace in dict.fromkeys(namespace for namespace, _ in self._noted):
            key, before = self._namespace_key(namespace), self._namespaces[namespace]
            self._namespaces[namespace] = key
            if key < before and len(self._namespaces) > 1:
                self._moved.update(dict.fromkeys((namespace, name) for name in self._users[namespace]))
        self._due.update(self._noted)
        self._noted.clear()
        self._noted_queues.clear()

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
