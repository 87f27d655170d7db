"""Divergence: whether the managers, who have applied the same log, hold the same state (docs/adr/0011-divergence.md).

The leader appends a CHECK. Whoever applies it fixes its state at that very entry, computes the digest beside its other work,
and reports it. Once all who can have answered, or time is up, the leader appends what it heard as DIGESTS, so that every
manager comes to the same verdict. A manager whose own digest is not the one that a majority of the voters has must not go on.

Pure bookkeeping: the core appends, sends and applies; the driver computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import structlog

from hasched.model.errors import HaschedError, NoLeader
from hasched.model.ids import ManagerId
from hasched.raft.tuning import Tuning
from hasched.statemachine.digest import Digester
from hasched.statemachine.snapshot import capture
from hasched.statemachine.state import State

log = structlog.get_logger(__name__)


class StateDiverged(HaschedError):
    """This manager's state is not what its log says: a defect, or a bit that flipped. The manager stops."""

    code = "state_diverged"

    def __init__(self, manager_id: ManagerId, index: int) -> None:
        super().__init__(
            f"the state of {manager_id} at entry {index} is not the one that the majority of the managers has",
            f"at its next start it moves its journal and snapshots to diverged-{index}/ and is filled again by the others",
            index=index,
        )
        self.index = index


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What a manager computed. Only digests of one `scheme` can be compared.

    Without a vote (ADR 0009) it is no part of the majority that is right: that majority must be able to go on alone.
    """

    scheme: str
    digest: str
    voter: bool


class Digests(msgspec.Struct, frozen=True):
    """A DIGESTS entry: what the leader heard about the CHECK at `index` until `time_ms`, and who the voters were."""

    index: int
    time_ms: int
    voters: list[ManagerId]
    reports: dict[ManagerId, Report]


class Verdict(msgspec.Struct, frozen=True):
    """`agreed` is what a majority of the voters has; without it nobody can say who is right, and `differing` names all."""

    index: int
    time_ms: int
    agreed: Report | None
    differing: list[ManagerId]
    silent: list[ManagerId]


def judge(digests: Digests) -> Verdict:
    """The same on every manager, and after every restart."""
    reports = dict(sorted(digests.reports.items()))
    votes: dict[Report, int] = {}
    for name, report in reports.items():
        if name in digests.voters and report.voter:
            votes[report] = votes.get(report, 0) + 1
    agreed = next((report for report, count in votes.items() if 2 * count > len(digests.voters)), None)
    if agreed is not None:
        differing = [name for name, report in reports.items() if differs(report, agreed)]
    else:
        differing = [
            name for name, report in reports.items() if any(differs(report, other) for other in reports.values())
        ]
    silent = [voter for voter in digests.voters if voter not in reports]
    return Verdict(digests.index, digests.time_ms, agreed, differing, silent)


def differs(one: Report, other: Report) -> bool:
    """Reports of two schemes neither agree nor differ."""
    return one.scheme == other.scheme and one.digest != other.digest


class Check:
    """A state fixed at the CHECK at `index`, whose digest is still to be computed. Close it, or read it to its end."""

    def __init__(self, index: int, state: State) -> None:
        self.index = index
        self.captured = capture(state)
        self.digester = Digester(state)

    def close(self) -> None:
        self.captured.close()


class _Asker(msgspec.Struct, frozen=True):
    expires: float
    done: Callable[[int | HaschedError], None]


class _Round(msgspec.Struct):
    """The check that this leader has under way."""

    index: int
    expires: float
    reports: dict[ManagerId, Report]


class Divergence:
    """One manager's part in the checks. It is told of time, and never reads a clock.

    `last_index` is that of its journal at its start: it takes no part in checks that are older, for whoever replays a log
    with a new release must not be held to what an old one computed, least of all everybody at once.
    """

    def __init__(self, manager_id: ManagerId, tuning: Tuning, last_index: int) -> None:
        self.verdict: Verdict | None = None  # the latest
        self.suspects: dict[ManagerId, None] = {}  # found to be wrong, so about to go, and nobody to count on
        self._manager_id = manager_id
        self._tuning = tuning
        self._replayed = last_index
        self._checked = last_index  # the latest CHECK in the log, as far as is known
        self._judged = last_index  # the latest whose DIGESTS were applied
        self._own: tuple[int, Report] | None = None
        self._round: _Round | None = None
        self._wanted = False
        self._askers: list[_Asker] = []
        self._asked: tuple[ManagerId, int] | None = None

    # --- asking for a check, on any manager ---

    def ask(self, now: float, done: Callable[[int | HaschedError], None]) -> None:
        """Call `done` with the index of the next CHECK that is applied here; it is made soon."""
        expires = now + self._tuning.check_timeout_s + self._tuning.proposal_timeout_s
        self._askers.append(_Asker(expires, done))

    def want(self) -> None:
        """Somebody asked this leader for a check."""
        self._wanted = True

    def request_to(self, leader: ManagerId, term: int) -> bool:
        """Whether `leader` is still to be told that somebody asks here."""
        if not self._askers or self._asked == (leader, term):
            return False
        self._asked = (leader, term)
        return True

    def lost_link(self, peer: ManagerId) -> None:
        if self._asked is not None and self._asked[0] == peer:
            self._asked = None

    def expire(self, now: float) -> None:
        late = [asker for asker in self._askers if asker.expires < now]
        if late:
            self._askers = [asker for asker in self._askers if asker.expires >= now]
        for asker in late:
            asker.done(NoLeader("no leader began a check in time", "retry after a moment"))

    def abandon(self, cause: str) -> None:
        """The manager stops."""
        askers, self._askers = self._askers, []
        for asker in askers:
            asker.done(NoLeader(cause, "ask another manager"))

    # --- the leader ---

    def due(self, last_index: int) -> bool:
        """Whether it is time for another check: so many entries after the last, at once if that was never judged, or by wish."""
        if self._round is not None:
            return False
        unfinished = self._judged < self._checked
        return (
            self._wanted or bool(self._askers) or unfinished or last_index >= self._checked + self._tuning.check_entries
        )

    @property
    def outstanding(self) -> list[ManagerId]:
        """Whose word is wanted: that of suspects, once they were filled again; and of who was silent when the latest check
        found a difference, and nobody could say who is right.
        """
        verdict = self.verdict
        if verdict is None or self._checked > verdict.index:
            return []
        undecided = verdict.differing and verdict.agreed is None
        return [*self.suspects, *(verdict.silent if undecided else ())]

    @property
    def under_way(self) -> bool:
        """Whether this leader waits for digests."""
        return self._round is not None

    def begin(self, index: int, now: float) -> None:
        """The CHECK stands in the log at `index`."""
        self._wanted = False
        self._checked = index
        self._round = _Round(index, now + self._tuning.check_timeout_s, {})

    def take(self, sender: ManagerId, index: int, report: Report) -> None:
        if self._round is not None and self._round.index == index:
            self._round.reports[sender] = report

    def finish(
        self, voters: Sequence[ManagerId], reachable: Sequence[ManagerId], time_ms: int, now: float
    ) -> Digests | None:
        """What was heard, once all of `reachable` have answered or time is up. To be appended; then it is over for the leader."""
        round_ = self._round
        if round_ is None or (now < round_.expires and any(name not in round_.reports for name in reachable)):
            return None
        self._round, self._judged = None, round_.index
        return Digests(round_.index, time_ms, list(voters), round_.reports)

    def leave_office(self) -> None:
        """The next leader begins anew."""
        self._round = None
        self._wanted = False

    # --- every manager ---

    def reached(self, index: int) -> bool:
        """The CHECK at `index` is applied. Whether to compute the digest of the state as it is now."""
        self._checked = max(self._checked, index)
        askers, self._askers, self._asked = self._askers, [], None
        for asker in askers:
            asker.done(index)
        return index > self._replayed

    def computed(self, index: int, report: Report) -> None:
        """Raises StateDiverged."""
        self._own = (index, report)
        self._compare()

    def heard(self, digests: Digests) -> None:
        """The DIGESTS are applied. Raises StateDiverged."""
        verdict = self.verdict = judge(digests)
        self._note_suspects(verdict, digests)
        self._judged = max(self._judged, verdict.index)
        facts = {"index": verdict.index, "differing": verdict.differing, "silent": verdict.silent}
        if verdict.differing:
            say = log.critical if verdict.index > self._replayed else log.info
            say("states_differ", **facts, reports={name: report.digest for name, report in digests.reports.items()})
        else:
            log.info("states_checked", **facts)
        self._compare()

    def _note_suspects(self, verdict: Verdict, digests: Digests) -> None:
        """Only its own word clears a suspect: what is silent may just have gone."""
        if verdict.agreed is not None:
            for name in digests.reports:
                self.suspects.pop(name, None)
            self.suspects.update(dict.fromkeys(verdict.differing))

    def _compare(self) -> None:
        """The digest may be later than the verdict: of a manager that is slow, or was behind."""
        verdict, own = self.verdict, self._own
        if verdict is None or verdict.agreed is None or own is None or own[0] != verdict.index:
            return
        if differs(own[1], verdict.agreed):
            raise StateDiverged(self._manager_id, verdict.index)
