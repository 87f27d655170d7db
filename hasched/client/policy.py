"""Whom to ask next, what to try again, and how long to wait in between. Shared by both clients; does no IO.

A request goes to the manager that answered last. One that can't be reached, or that says that nobody leads, is followed
by the next at once; after a whole round the pauses grow, with jitter, until the call's deadline. One that is slow to
answer is asked on another connection whether it lives; if it doesn't say so either, it counts as one that gave no answer.

A caller who asks for no retries learns what came of each single try, and of none that nothing was done unless that is sure.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Sequence
from typing import NoReturn

from hasched.model.errors import (
    ClusterNotTrusted,
    ClusterUnreachable,
    HaschedError,
    NodeUnreachable,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    StorageFailed,
)

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
CONNECT_TIMEOUTS_S = (
    1.0,
    3.0,
)  # for the address and TLS, in the first round and later; a frozen manager takes connections
ATTEMPT_TIMEOUT_S = 10.0
QUIET_S = 0.5  # after so long without an answer, and then after twice as long, a manager is asked whether it lives
LIFE_TIMEOUT_S = 1.0
LIFE_PATH = "/livez"
NODE_PATIENCE_S = 8.0  # a new leader doesn't know the agents until they have found it


_NOTHING_DONE = (
    NoLeader,
    NotLeader,
    Overloaded,
    StorageFailed,
)  # of what a manager answers with a status of 500 and more
_TRY_AGAIN = (NoLeader, NotLeader, OutcomeUnknown, Overloaded, StorageFailed)  # a full disk is one manager's alone


class NotReached(OSError):
    """No connection came about, so nothing was sent; `__cause__` says why."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause) or repr(cause))
        self.__cause__ = cause


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
    `writes` says whether the call changes anything, and `submission_ids` under which names. `patience_s` is how long one
    manager may take to answer.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        now: float,
        timeout_s: float,
        *,
        writes: bool = False,
        submission_ids: Sequence[str] = (),
        patience_s: float = ATTEMPT_TIMEOUT_S,
    ) -> None:
        self._patience_s = patience_s
        self._endpoints = endpoints
        self.url = endpoints.current
        self._begun = now
        self._deadline = now + timeout_s
        self._writes = writes
        self._submission_ids = submission_ids
        self._count = 0
        self._last: dict[str, HaschedError | OSError] = {}
        self._took: dict[str, str] = {}  # the managers that took the request, and what came of it

    @property
    def uncertain(self) -> bool:
        """Whether an earlier try may have been carried out."""
        return bool(self._took)

    def attempt_timeout_s(self, now: float) -> float:
        return max(0.1, min(self._patience_s, self._deadline - now))

    @property
    def connect_timeout_s(self) -> float:
        return CONNECT_TIMEOUTS_S[min(self._count // len(self._endpoints.urls), len(CONNECT_TIMEOUTS_S) - 1)]

    def failed(self, error: HaschedError | OSError, now: float, *, reused_connection: bool = False) -> float:
        """The pause before the next try, in seconds.

        Raises, if there is to be none: `error` where it is final, OutcomeUnknown where a try may have been carried out,
        ClusterUnreachable where none was.
        """
        patient = isinstance(error, NodeUnreachable) and now - self._begun < NODE_PATIENCE_S
        if isinstance(error, HaschedError) and not isinstance(error, _TRY_AGAIN) and not patient:
            raise error
        before = self._last.get(self.url)
        self._note(error)
        if reused_connection and not isinstance(error, TimeoutError):
            return 0.0  # the manager may have restarted, or closed an idle connection: the same one, anew
        if isinstance(error, OutcomeUnknown) and not isinstance(before, OutcomeUnknown):
            return 0.0  # it lost the leader, and lives: it is the first to know the next, and others may be gone
        self._count += 1
        self._endpoints.leave(self.url)
        self.url = self._endpoints.current
        rounds, place = divmod(self._count, len(self._endpoints.urls))
        pause = 0.0
        if place == 0:
            longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(rounds, 16))
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - jitter
        if now + pause >= self._deadline or self._hopeless():
            raise self._end(error) from None
        return pause

    def _note(self, error: HaschedError | OSError) -> None:
        self._last[self.url] = error
        if isinstance(error, OutcomeUnknown):
            self._took[self.url] = error.cause
        elif isinstance(error, TimeoutError):
            self._took[self.url] = "took the request and didn't answer in time"
        elif isinstance(error, OSError) and not isinstance(error, NotReached):
            self._took[self.url] = f"took the request and gave no answer: {_text(error)}"

    def tell(self) -> str:
        """What came of the call so far."""
        told = {url: self._took.get(url) or _text(last) for url, last in list(self._last.items())}
        told.setdefault(self.url, "has not answered")
        return "; ".join(f"{url}: {what}" for url, what in told.items())

    def _hopeless(self) -> bool:
        """Whether everybody who is there is of another cluster: waiting would not change it."""
        everybody = set(self._endpoints.urls) <= self._last.keys()
        return everybody and not self._took and all(_mistrusted(error) for error in self._last.values())

    def _end(self, error: HaschedError | OSError) -> HaschedError:
        """What to say now that there is no further try."""
        told = "; ".join(f"{url}: {self._took.get(url) or _text(last)}" for url, last in self._last.items())
        if self._took and self._writes:
            extra: dict[str, object] = {}
            hint = "repeat it: what is done already is not done twice"
            if self._submission_ids:
                hint = f"repeat it with the same submission id, {self._submission_ids[0]}: it is done at most once"
                extra = {"submission_id": self._submission_ids[0]}
            if len(self._submission_ids) > 1:
                hint = "repeat it with the same submission ids: each is done at most once"
                extra = {"submission_ids": list(self._submission_ids)}
            return OutcomeUnknown(f"it may have been done or not ({told})", hint, **extra)
        if all(_mistrusted(last) for last in self._last.values()):
            return ClusterNotTrusted(
                f"the managers' certificates are not of the cluster's CA ({told})",
                "does the context name the CA of this cluster, and do its URLs lead to its managers?",
            )
        answers = [last for last in self._last.values() if isinstance(last, HaschedError)]
        if answers:
            final = error if isinstance(error, HaschedError) else answers[-1]
            known, reached = len(self._endpoints.urls), len(answers)
            if isinstance(final, NoLeader) and 2 * reached <= known:
                return NoLeader(f"{reached} of {known} managers reachable, no majority ({told})", "start the others")
            return final
        if self._took:
            return ClusterUnreachable(f"no answer came in time ({told})", "is a majority of the managers up?")
        return ClusterUnreachable(f"no manager answered ({told})", "is the cluster up, and the context right?")


class OneTry(Tries):
    """The course of a call that is tried once. The next call asks another manager if this one had no answer."""

    def failed(self, error: HaschedError | OSError, now: float, *, reused_connection: bool = False) -> NoReturn:
        """Raises what came of it: the manager's own error where it answered, unless something may have been done in spite
        of it: then, and where the answer didn't come, OutcomeUnknown; ClusterUnreachable if nothing was sent.
        """
        if isinstance(error, HaschedError) and error.status < 500:
            raise error
        self._endpoints.leave(self.url)
        self._note(error)
        if isinstance(error, HaschedError):
            if not self._writes or isinstance(error, _NOTHING_DONE):
                raise error
            self._took[self.url] = error.cause
        raise self._end(error) from None


def _text(error: HaschedError | OSError) -> str:
    return error.cause if isinstance(error, HaschedError) else str(error) or repr(error)


def _mistrusted(error: HaschedError | OSError) -> bool:
    return isinstance(error.__cause__, ssl.SSLCertVerificationError)
