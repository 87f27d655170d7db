"""The document of a report. Everything that the page shows stands in it; times are seconds since the run began."""

from __future__ import annotations

import msgspec

from chaos.record import Phase, Struck

FORMAT = 1

HELD, BROKEN, UNDECIDED = "held", "broken", "undecided"


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Verdict(_Part, frozen=True):
    """On one promise. `verdict` is held, broken or undecided; `wrong` are sentences, `looked_at` says what was checked, as
    "11,676 acknowledged submissions"."""

    name: str
    promise: str
    verdict: str
    looked_at: str = ""
    wrong: list[str] = []
    undecided: list[str] = []


class ClusterPart(_Part, frozen=True):
    name: str
    kind: str  # own, attached
    managers: list[str]
    agents: list[str]


class Head(_Part, frozen=True):
    """`command` repeats the run, `versions` are by name of the program."""

    kind: str  # run, drills
    seed: int
    command: str
    began_ms: int
    seconds: float
    host: str
    versions: dict[str, str]
    cluster: ClusterPart | None = None
    left_out: list[str] = []  # what could not be done here, and why
    notes: list[str] = []


class Lead(_Part, frozen=True):
    """A manager said that it leads, from the first to the last time it was seen to."""

    manager: str
    term: int
    from_s: float
    until_s: float


class Bucket(_Part, frozen=True):
    """Calls that began within a second; latencies in milliseconds are of those that returned."""

    at_s: float
    returned: int
    failed: int
    unknown: int
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Totals(_Part, frozen=True):
    """Calls of one kind, by how they ended."""

    kind: str
    returned: int
    failed: int
    unknown: int


class Gap(_Part, frozen=True):
    """Submissions were tried, and none was accepted in between; `during` are the strikes of that time, as "kill m1"."""

    from_s: float
    until_s: float
    during: list[str] = []


class Call(_Part, frozen=True, array_like=True):
    """One call of a history, as a person reads it. `until_s` is None where it never ended.

    There may be fifty thousand of them: in JSON each is an array of its fields in this order, a third of the size.
    """

    client: str
    kind: str
    from_s: float
    until_s: float | None
    ending: str
    result: str = ""


class DrillPart(_Part, frozen=True):
    """`verdict` is passed, failed or left out (with the reason in `why`); `evidence` are lines "12.3 s  what"."""

    name: str
    happened: str
    expects: str
    verdict: str
    why: str = ""
    seconds: float = 0.0
    evidence: list[str] = []
    logs: dict[str, str] = {}  # the last lines of each daemon, of a drill that failed


class Document(_Part, frozen=True):
    """`histories` are by submission id; those of broken verdicts come first. `suspects` are the ids that a broken or
    undecided verdict speaks of, `gaps` the longest, longest first."""

    head: Head
    format: int = FORMAT
    verdicts: list[Verdict] = []
    phases: list[Phase] = []
    strikes: list[Struck] = []
    leaders: list[Lead] = []
    calls: list[Bucket] = []
    totals: list[Totals] = []
    gaps: list[Gap] = []
    suspects: list[str] = []
    histories: dict[str, list[Call]] = {}
    drills: list[DrillPart] = []
    logs: dict[str, str] = {}

    @property
    def all_held(self) -> bool:
        """Whether every verdict is held, and every drill that was played passed; nothing looked at is not enough."""
        played = [each for each in self.drills if each.verdict != "left out"]
        good = all(each.verdict == HELD for each in self.verdicts) and all(each.verdict == "passed" for each in played)
        return good and bool(self.verdicts or played)
