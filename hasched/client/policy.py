"""Whom to ask next, what to try again, and how long to wait in between. Shared by both clients; does no IO.

A request goes to the manager that answered last. One that can't be reached, or that says that nobody leads, is followed
by the next at once; after a whole round the pauses grow, with jitter, until the call's deadline.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hasched.model.errors import (
    ClusterUnreachable,
    HaschedError,
    NodeUnreachable,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
)

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
CONNECT_TIMEOUT_S = 3.0  # for the address and TLS; a frozen manager takes connections and says nothing
ATTEMPT_TIMEOUT_S = 10.0
NODE_PATIENCE_S = 8.0  # a new leader doesn't know the agents until they have found it

_TRY_AGAIN = (NoLeader, NotLeader, OutcomeUnknown, Overloaded)


class Endpoints:
    """The managers' URLs; remembers which one answered last. Raises ValueError where there is none."""

    def __init__(self, urls: Sequence[str]) -> None:
        if not urls:
            raise ValueError("no manager is known")
        self.urls = [url.rstrip("/") for url in urls]
        self._current = random.randrange(len(self.urls))  # noqa: S311 - spreads clients over the managers

    @property
    def current(self) -> str:
        return self.urls[self._current]

    def leave(self, url: str) -> None:
        """Go on to the next, unless a call that goes on beside this one has left `url` already."""
        if self.current == url:
            self._current = (self._current + 1) % len(self.urls)


class Tries:
    """The course of one call, which asks `url`.

    Ask `failed` after each failure: it raises, or says how long to pause before the next try, which may be elsewhere.
    """

    def __init__(self, endpoints: Endpoints, now: float, timeout_s: float) -> None:
        self._endpoints = endpoints
        self.url = endpoints.current
        self._begun = now
        self._deadline = now + timeout_s
        self._count = 0
        self._last: dict[str, str] = {}
        self.uncertain = False  # whether an earlier try may have been carried out

    def attempt_timeout_s(self, now: float) -> float:
        return max(0.1, min(ATTEMPT_TIMEOUT_S, self._deadline - now))

    def failed(self, error: HaschedError | OSError, now: float, *, reused_connection: bool = False) -> float:
        """The pause before the next try, in seconds. Raises `error`, or ClusterUnreachable, if there is to be none."""
        patient = isinstance(error, NodeUnreachable) and now - self._begun < NODE_PATIENCE_S
        if isinstance(error, HaschedError) and not isinstance(error, _TRY_AGAIN) and not patient:
            raise error
        self.uncertain = self.uncertain or isinstance(error, OSError | OutcomeUnknown)
        self._last[self.url] = error.cause if isinstance(error, HaschedError) else str(error) or repr(error)
        if reused_connection:
            return 0.0  # the manager may have restarted, or closed an idle connection: the same one, anew
        self._count += 1
        self._endpoints.leave(self.url)
        self.url = self._endpoints.current
        rounds, place = divmod(self._count, len(self._endpoints.urls))
        pause = 0.0
        if place == 0:
            longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(rounds, 16))
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - jitter
        if now + pause >= self._deadline:
            if isinstance(error, HaschedError):
                raise error
            tried = "; ".join(f"{url}: {cause}" for url, cause in self._last.items())
            raise ClusterUnreachable(f"no manager answered ({tried})", "is the cluster up, and the context right?")
        return pause
