"""The one thing that a reader wants to know first, in the same words on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from chaos.checkers.models import SUBMIT
from chaos.record import Struck
from chaos.report.document import BROKEN, HELD, Document

NOTHING = "nothing"  # beside held, broken and undecided: nobody looked

SIGNS = {HELD: "✓", BROKEN: "✗", "passed": "✓", "failed": "✗", "left out": "–"}  # whatever else it may say is undecided
UNDECIDED_SIGN = "?"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """`word` is held, broken, undecided or nothing; only `held` may look good."""

    word: str
    sentence: str

    @property
    def sign(self) -> str:
        return "–" if self.word == NOTHING else SIGNS.get(self.word, UNDECIDED_SIGN)


def sum_up(document: Document) -> Summary:
    """One broken promise outweighs all that held, and so does one that nobody could decide."""
    broken = sum(each.verdict == BROKEN for each in document.verdicts)
    held = sum(each.verdict == HELD for each in document.verdicts)
    failed = sum(each.verdict == "failed" for each in document.drills)
    passed = sum(each.verdict == "passed" for each in document.drills)
    looked = any(each.looked_at or each.wrong or each.undecided for each in document.verdicts)
    if broken or failed:
        wrong = [_count(broken, "promise is", "promises are") + " broken"] if broken else []
        wrong += [_count(failed, "drill") + " failed"] if failed else []
        return Summary(word=BROKEN, sentence=" and ".join(wrong))
    if document.all_held:
        right = [_count(held, "promise was", "promises were") + " kept"] if held else []
        right += [_count(passed, "drill") + " passed"] if passed else []
        return Summary(word=HELD, sentence=" and ".join(right))
    if not (held or passed or looked):
        return Summary(word=NOTHING, sentence="nothing was looked at")
    undecided = len(document.verdicts) - held
    others = len(document.drills) - passed - sum(each.verdict == "left out" for each in document.drills)
    open_ = [f"{undecided} of {_count(len(document.verdicts), 'promise')}"] if undecided else []
    open_ += [f"{others} of {_count(len(document.drills), 'drill')}"] if others else []
    return Summary(word="undecided", sentence=f"{' and '.join(open_)} could not be decided")


def name_run(document: Document) -> str:
    """What was done, in a line."""
    head = document.head
    parts = [f"hasched chaos {'drill' if head.kind == 'drills' else head.kind}", f"seed {head.seed}"]
    if head.cluster is not None:
        sizes = [_count(len(head.cluster.managers), "manager"), _count(len(head.cluster.agents), "agent")]
        parts += [", ".join(sizes) + f" ({head.cluster.kind} cluster {head.cluster.name})"]
    return " · ".join([*parts, duration(head.seconds)])


def name_figures(document: Document) -> list[tuple[str, str]]:
    """The sizes of a run, as (number, what it counts): without them a verdict says little."""
    calls = sum(each.returned + each.failed + each.unknown for each in document.totals)
    unknown = sum(each.unknown for each in document.totals)
    accepted = sum(each.returned for each in document.totals if each.kind == SUBMIT)
    skipped = sum(each.outcome == "skipped" for each in document.strikes)
    figures = []
    if document.totals:
        figures += [(f"{accepted:,}", "submissions accepted"), (f"{calls:,}", f"calls, {unknown:,} of them unknown")]
    if document.totals or document.strikes:
        figures += [(f"{len(document.strikes):,}", "strikes" + (f", {skipped:,} of them skipped" if skipped else ""))]
    if document.gaps:
        longest = document.gaps[0]
        figures += [(seconds(longest.until_s - longest.from_s), "the longest time without an accepted submission")]
    return figures


def by_family(strikes: Iterable[Struck]) -> dict[str, list[Struck]]:
    found: dict[str, list[Struck]] = {}
    for struck in strikes:
        found.setdefault(struck.family, []).append(struck)
    return dict(sorted(found.items()))


def outcomes(strikes: Sequence[Struck]) -> dict[str, int]:
    """How many ended how."""
    found: dict[str, int] = {}
    for struck in strikes:
        found[struck.outcome] = found.get(struck.outcome, 0) + 1
    return found


def seconds(value: float) -> str:
    """`0.4 s`, `61 s`."""
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def duration(value: float) -> str:
    """`12 s`, `5 min 12 s`, `2 h 3 min`."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"
